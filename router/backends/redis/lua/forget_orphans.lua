-- No copy of these acknowledged messages is left in cold; believed unless a migrator can be about to write one.
--
-- ARGV  from 2 the ids
-- Result: nothing that is looked at.

if holds_move(tonumber(call('HGET', META, 'u') or 0)) then return 0 end
for i = 2, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED_OWED then
    bury(ARGV[i], record, record.number, record.number)
  end
  call('ZREM', OWED, ARGV[i])
end
return 1
