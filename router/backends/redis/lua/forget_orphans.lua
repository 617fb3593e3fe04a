-- Record that cold has no copies of these acknowledged messages any more. Ignored while a migrator holds the lease,
-- since it may be about to write one.
--
-- ARGV  from 2 the ids
-- Result: unused.

if holds_move(tonumber(call('HGET', META, 'u') or 0)) then return 0 end
for i = 2, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED_OWED then
    bury(ARGV[i], record, record.number, record.number)
  end
  call('ZREM', OWED, ARGV[i])
end
return 1
