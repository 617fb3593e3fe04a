-- Retention removed these from cold.
--
-- ARGV  2 remember plain ones until   3 and keyed ones; then the ids
-- Result: how many of them were known.

local gone = 0
for i = 4, #ARGV do
  local record = record_of(ARGV[i])
  if record and record.state == COLD then
    bury(ARGV[i], record, tonumber(ARGV[2]), tonumber(ARGV[3]))
    gone = gone + 1
  end
end
add_to_meta('n', -gone)
return gone
