-- Record that cold holds these messages. A hot one counts as having a copy in cold from here on; an unknown one was
-- written by a pipeline that could not reach this store.
--
-- ARGV  2 prefix of the channels   3 user; then for each message: id, lane, sequence, keyed, bytes of its envelope
-- Result: the ids that were acknowledged meanwhile; id and sequence on record of each that cold has with a later one

local channel, user = ARGV[2], ARGV[3]
local acked, misplaced, arrived, bytes, changed = {}, {}, 0, 0, false
local sequence = tonumber(call('HGET', META, 's') or 0)

for i = 4, #ARGV, 5 do
  local id, record = ARGV[i], record_of(ARGV[i])
  if not record then
    record = {
      state = COLD, lane = tonumber(ARGV[i + 1]), number = tonumber(ARGV[i + 2]), keyed = tonumber(ARGV[i + 3]),
      ephemeral = 0, size = tonumber(ARGV[i + 4]),
    }
    sequence, changed = math.max(sequence, record.number), true
    arrived, bytes = arrived + 1, bytes + record.size
    keep_record(id, record)
  elseif record.state == ACKED or record.state == ACKED_OWED then
    acked[#acked + 1] = id
  elseif record.state == ON_ITS_WAY and tonumber(ARGV[i + 2]) > record.number then
    misplaced[#misplaced + 1], misplaced[#misplaced + 2] = id, record.number
  elseif record.state == HOT or record.state == ON_ITS_WAY then
    call('HDEL', PENDING, id)
    record.state, changed = record.state == HOT and DOUBLE or COLD, true
    keep_record(id, record)
  end
end

if changed then
  if arrived > 0 then call('HSET', META, 's', sequence) end
  count_cold(arrived, bytes)
  cold_changed()
  poke_new(judge_live(), channel, user)
end
return { acked, misplaced }
