-- Do what is due in one user's records: drop expired ephemeral messages, delete tombstones whose time is over and
-- records of mail that retention has removed from cold, and, if nothing is left, the user.
--
-- ARGV  2 µs after which an accepted ephemeral message expires   3 tombstones of plain ones end   4 and of keyed ones
--       5 retention has removed all mail with a lower sequence than this   6 limit, of each kind
--       7 the earliest time that it may be, by which records are judged
-- Result: how many ephemeral messages were dropped, when to look again (0 for never), 1 if more is due now, else 0

local span, limit, at = tonumber(ARGV[2]), tonumber(ARGV[6]), tonumber(ARGV[7])
local dropped, bytes = 0, 0
for _, id in ipairs(call('ZRANGEBYSCORE', EPHEMERAL, '-inf', now - span, 'LIMIT', 0, limit)) do
  local record = record_of(id)
  if record then
    bytes, dropped = bytes + take_out(id, record), dropped + 1
    bury(id, record, tonumber(ARGV[3]), tonumber(ARGV[4]))
  end
  call('ZREM', EPHEMERAL, id)
end
add_to_meta('h', -dropped)
add_to_meta('b', -bytes)
local more = dropped == limit
for _, list in ipairs({GONE, GONE_KEYED}) do
  more = prune(list, limit, at) == at or more
end

-- Once a day, walk over the records, a page in each call. Delete records of mail that is long gone from cold although
-- nobody has reported it, and tombstones, and enter orphans again, that an eviction took out of the other keys.
local stale_before, lost, lost_bytes = tonumber(ARGV[5]), 0, 0
local function check(id, record)
  local state = record.state
  if state == ACKED then
    if record.number < at - DAY then call('HDEL', IDS, id) end
  elseif state == ACKED_OWED then
    if not call('ZSCORE', OWED, id) then enter_orphan(id, at) end
  elseif record.number < stale_before and not call('ZSCORE', QUEUE, id) then
    call('HDEL', IDS, id)
    call('HDEL', PENDING, id)
    if state == COLD or state == ON_ITS_WAY then lost, lost_bytes = lost + 1, lost_bytes + record.size end
  end
end
local walk = call('HMGET', META, 'c', 'd')
local walked_at = tonumber(walk[2] or 0)
if at > 0 and (walk[1] or math.abs(at - walked_at) >= DAY) then
  local scan = call('HSCAN', IDS, walk[1] or '0', 'COUNT', limit)
  for i = 1, #scan[2], 2 do
    local record = record_of(scan[2][i])
    if record then check(scan[2][i], record) end
  end
  if scan[1] == '0' then call('HDEL', META, 'c') else call('HSET', META, 'c', scan[1]) end
  more = more or scan[1] ~= '0'
  call('HSET', META, 'd', at)
end
count_cold(-lost, -lost_bytes)

local held = call('HMGET', META, 's', 'u')
local at_rest = call('EXISTS', IDS, QUEUE, BODIES, PENDING, CONNECTIONS, OWED) == 0
local kept = holds_move(tonumber(held[2] or 0)) or inbound_until() > at
if at_rest and tonumber(held[1] or 0) <= at and not kept then
  call('DEL', META, EPHEMERAL, GONE, GONE_KEYED)
end
return {dropped, due(span), more and 1 or 0}
