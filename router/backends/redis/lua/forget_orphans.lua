-- No copy of these acknowledged messages is left in cold.
--
-- ARGV  from 2 the ids

for i = 2, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED_OWED then
    bury(ARGV[i], record, record.number, record.number)
  end
  call('ZREM', OWED, ARGV[i])
end
return 1
