-- Take messages, which cold holds durably now, out of the hot queue.
--
-- ARGV  from 2 the ids
-- Result: the ids that were acknowledged meanwhile. No owner is checked: each record says whether its message moves.

local acked, bytes, moved = {}, 0, 0
for i = 2, #ARGV do
  local id, record = ARGV[i], record_of(ARGV[i])
  if record and (record.state == HOT or record.state == DOUBLE) then
    record.state, record.size = COLD, take_out(id, record)
    bytes, moved = bytes + record.size, moved + 1
    keep_record(id, record)
  elseif record and (record.state == ACKED or record.state == ACKED_OWED) then
    acked[#acked + 1] = id
  end
end
add_to_meta('h', -moved)
add_to_meta('b', -bytes)
count_cold(moved, bytes)
if call('EXISTS', META) == 1 then cold_changed() end
return acked
