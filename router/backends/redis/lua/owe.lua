-- Cold has copies of these acknowledged messages though nobody owes their deletion: a master that was replaced has moved
-- them there, or has been told so, and this one was not.
--
-- ARGV  from 2 the ids
-- Result: nothing that is looked at.

for i = 2, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED then
    record.state = ACKED_OWED
    keep_record(ARGV[i], record)
    call('ZADD', OWED, now, ARGV[i])
  end
end
return 1
