-- Make orphans of acknowledged messages that a fetch has found in cold although nobody is about to delete them: for
-- example, a master that was replaced knew of their move, and this one does not.
--
-- ARGV  2 the earliest time that it may be, or 0 (see `enter_orphan`); then the ids
-- Result: unused.

for i = 3, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == ACKED then
    record.state = ACKED_OWED
    keep_record(ARGV[i], record)
    enter_orphan(ARGV[i], tonumber(ARGV[2]))
  end
end
return 1
