-- Remove exactly these connections.
--
-- ARGV  from 2 their ids
-- Result: 1 if this removed the last live connection, 2 if the others must be poked (see `left_behind`), else 0

local removed = call('HDEL', CONNECTIONS, unpack(ARGV, 2))
local _, online = live()
if removed == 0 then return 0 end
if online == 0 then
  note_offline(now)
  return 1
end
return left_behind() and 2 or 0
