-- Count messages as acknowledged: retention is about to delete them from cold.
--
-- ARGV  2 tombstones of plain ones end   3 and of keyed ones; then the ids
-- Result: how many of them were known.

local gone, bytes = 0, 0
for i = 4, #ARGV do
  local record = record_of(ARGV[i])
  if record and (record.state == COLD or record.state == ON_ITS_WAY) then
    call('HDEL', PENDING, ARGV[i])
    gone, bytes = gone + 1, bytes + record.size
    bury(ARGV[i], record, tonumber(ARGV[2]), tonumber(ARGV[3]))
  end
end
count_cold(-gone, -bytes)
return gone
