-- Remove exactly these connections.
--
-- ARGV  from 2 their ids
-- Result: 1 if none is live any more because of it

local removed = call('HDEL', CONNECTIONS, unpack(ARGV, 2))
local _, online = live()
return removed > 0 and online == 0 and 1 or 0
