-- Acknowledge messages: take them out of the hot queue and remember them as acknowledged.
--
-- ARGV  2 tombstones of plain ones end   3 tombstones of keyed ones end   4 the earliest time that it may be, or 0 (see
--       `enter_orphan`); then the ids
-- Result: the ids of which cold may have a copy.

local owed, bytes, hot, cold, cold_bytes = {}, 0, 0, 0, 0

-- If the last page was cut short, the user's time to fetch the next one begins again.
local cut = cut_at()
if cut > 0 then keep_cut(next_cut(cut)) end
for i = 5, #ARGV do
  local id, record = ARGV[i], record_of(ARGV[i])
  if not record then
    -- Even if cold counts as empty: a pipeline that could not reach this store may have written the message there.
    owed[#owed + 1] = id
  else
    local state = record.state
    if state == HOT or state == DOUBLE then
      bytes, hot = bytes + take_out(id, record), hot + 1
    elseif state == ON_ITS_WAY or state == COLD then
      call('HDEL', PENDING, id)
      cold, cold_bytes = cold + 1, cold_bytes + record.size
    end
    if state == HOT and not may_be_double(record) then
      bury(id, record, tonumber(ARGV[2]), tonumber(ARGV[3]))
    elseif state ~= ACKED then
      owed[#owed + 1] = id
      if state ~= ACKED_OWED then
        record.state, record.number = ACKED_OWED, tonumber(ARGV[record.keyed == 1 and 3 or 2])
        keep_record(id, record)
        enter_orphan(id, tonumber(ARGV[4]))
      end
    end
  end
end
add_to_meta('h', -hot)
add_to_meta('b', -bytes)
count_cold(-cold, -cold_bytes)
return owed
