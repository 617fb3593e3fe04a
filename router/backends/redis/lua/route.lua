-- The atomic routing step (docs/specification.md#the-atomic-step) for one recipient: presence, sequence, dedupe,
-- enqueue and poke.
--
-- ARGV  2 prefix of the channels   3 user   4 cap of the queue, in messages   5 and in bytes
--       6 ephemeral messages accepted at or before this have expired   7 1 for write-through, else 0
--       8 the earliest time that it may be, or 0: deletes tombstones whose time was over then; see `enter_orphan`
--       9 now, by the server's clock
--       10 µs in which an empty inbound budget becomes whole again; 0: none   11 bytes of it that come back in a second;
--       then for each message, in order:
--       id, lane, ephemeral, keyed, accepted_at, 1 if delivered before, else 0, body
-- Result: for each message its messages.Outcome and its sequence, or 0.
-- A repeated call finds each id on record and changes nothing.

prune(GONE, 64, tonumber(ARGV[8]))
prune(GONE_KEYED, 64, tonumber(ARGV[8]))
local channel, user, cap, cap_bytes = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local cutoff, write_through = tonumber(ARGV[6]), ARGV[7] == '1'
local server_now, span, per_second = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local nodes, online = judge_live()
local hot = hot_count()
local held = call('HMGET', META, 's', 'n', 'r', 'b', 'z', 'i')
local sequence, cold = tonumber(held[1] or 0), tonumber(held[2] or 0)
local bytes = tonumber(held[4] or 0) + tonumber(held[5] or 0)
local inbound = tonumber(held[6] or 0)
local results, entered_hot, entered_cold, hot_bytes, cold_bytes, doubled = {}, 0, 0, 0, 0, false

local function known_outcome(record)
  if record.state == ON_ITS_WAY then return 'cold' end
  if record.state == COLD then return 'announce' end
  if record.state == DOUBLE and write_through then return 'copy' end
  return 'duplicate'
end

-- lifecycle.redelivery: a pipeline that could not reach this store may have written the message to cold.
local function may_be_cold(id, record)
  if record.state == HOT then
    record.state = DOUBLE
  elseif record.state == ACKED then
    record.state = ACKED_OWED
    enter_orphan(id, tonumber(ARGV[8]))
  else
    return
  end
  keep_record(id, record)
end

-- recipient_limits.charged: when the inbound budget is whole again with `size` bytes charged, and when without them.
local function charged(size)
  local whole_at = server_now
  if server_now < inbound and inbound <= server_now + span + INBOUND then whole_at = inbound end
  return whole_at + math.ceil(size * 1e6 / per_second), whole_at
end

local function decide(ephemeral, accepted_at, size)
  if ephemeral == 1 then
    if accepted_at <= cutoff then return 'dropped-expired' end
    if online == 0 then return 'dropped-offline' end
  end
  if hot + cold + entered_hot + entered_cold >= cap then return 'queue-full' end
  if bytes + hot_bytes + cold_bytes + size > cap_bytes then return 'queue-bytes-full' end
  if span > 0 then
    local after, whole_at = charged(size)
    if whole_at > server_now and after > server_now + span then return 'inbound-exhausted' end
  end
  return online > 0 and 'hot' or 'cold'
end

for i = 12, #ARGV, 7 do
  local id, lane, ephemeral, keyed = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local accepted_at, before, body = tonumber(ARGV[i + 4]), ARGV[i + 5] == '1', ARGV[i + 6]
  local size = #body - HEADER
  local known = record_of(id)
  local outcome, given = nil, 0
  if known then
    outcome = known_outcome(known)
    if known.state ~= ACKED and known.state ~= ACKED_OWED then given = known.number end
    if before and ephemeral == 0 then may_be_cold(id, known) end
  else
    outcome = decide(ephemeral, accepted_at, size)
    if outcome == 'hot' or outcome == 'cold' then
      sequence = math.max(sequence + 1, now)
      given = sequence
      if span > 0 then inbound = charged(size) end
      local record = {lane = lane, keyed = keyed, ephemeral = ephemeral, number = sequence, queued_at = now, size = size}
      if outcome == 'hot' then
        record.state = ephemeral == 0 and (write_through or before) and DOUBLE or HOT
        doubled = doubled or record.state == DOUBLE
        call('ZADD', QUEUE, place_of(lane, sequence), id)
        call('HSET', BODIES, id, body)
        if ephemeral == 1 then call('ZADD', EPHEMERAL, accepted_at, id) end
        entered_hot, hot_bytes = entered_hot + 1, hot_bytes + size
      else
        record.state = ON_ITS_WAY
        call('HSET', PENDING, id, place_of(lane, sequence))
        entered_cold, cold_bytes = entered_cold + 1, cold_bytes + size
      end
      keep_record(id, record)
    end
  end
  results[#results + 1], results[#results + 2] = outcome, given
end

if entered_hot + entered_cold > 0 then
  if not held[3] then begin_reign(held[1]) end
  call('HSET', META, 's', sequence, 'h', hot + entered_hot, 'i', string.format('%.0f', inbound))
  add_to_meta('b', hot_bytes)
  count_cold(entered_cold, cold_bytes)
  if entered_cold > 0 then cold_changed() elseif doubled then cold_may_change() end
  if entered_hot > 0 then poke_new(nodes, channel, user) end
end
return results
