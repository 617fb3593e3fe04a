-- Cold has copies of these acknowledged messages though nobody owes their deletion: a master that was replaced has moved
-- them there, or has been told so, and this one was not.
--
-- ARGV  2 the earliest time that it may be, or 0 (see `owe`); then the ids
-- Result: nothing that is looked at.

for i = 3, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED then
    record.state = ACKED_OWED
    keep_record(ARGV[i], record)
    owe(ARGV[i], tonumber(ARGV[2]))
  end
end
return 1
