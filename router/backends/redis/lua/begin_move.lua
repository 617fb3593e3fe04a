-- Take the migration lease and the oldest messages, which stay readable. Drop ephemeral ones.
--
-- ARGV  2 owner   3 the lease ends   4 limit   5 the most bytes   6 1 to move mail of online users too, else 0
--       7 tombstones of dropped plain ones end   8 and of keyed ones
-- Result: 'busy', 'online', or {dropped, more (0 or 1), highest announced sequence, {id, place, body, …}}

local held = call('HMGET', META, 'o', 'u', 'a')
if held[1] and held[1] ~= ARGV[2] and holds_move(tonumber(held[2] or 0)) then return 'busy' end
if ARGV[6] == '0' then
  local _, online = judge_live()
  if online > 0 then return 'online' end
end
local limit, dropped, bytes = tonumber(ARGV[4]), 0, 0
for _, id in ipairs(call('ZRANGE', EPHEMERAL, 0, limit - 1)) do
  local record = record_of(id)
  if record then
    bytes = bytes + take_out(id, record)
    bury(id, record, tonumber(ARGV[7]), tonumber(ARGV[8]))
    dropped = dropped + 1
  end
  call('ZREM', EPHEMERAL, id)
end
add_to_meta('h', -dropped)
add_to_meta('b', -bytes)
if call('EXISTS', EPHEMERAL) == 1 then return {dropped, 1, 0, {}} end

local found, more = page(limit, tonumber(ARGV[5]))
if #found > 0 then
  call('HSET', META, 'o', ARGV[2], 'u', ARGV[3])
  cold_changed()
end
for i = 1, #found, 3 do
  local record = record_of(found[i])
  if record.state == HOT then
    record.state = DOUBLE
    keep_record(found[i], record)
  end
end
return {dropped, more, tonumber(held[3] or 0), found}
