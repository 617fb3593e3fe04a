-- Remove exactly these connections.
--
-- ARGV  from 2 their ids
-- Result: 1 if none is live any more because of it, 2 if the others are to be poked, else 0

local removed = call('HDEL', CONNECTIONS, unpack(ARGV, 2))
local _, online = live()
if removed == 0 then return 0 end
if online == 0 then return 1 end
return left_behind() and 2 or 0
