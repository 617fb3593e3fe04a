-- Stop repeating pokes to a user who is not connected, until new mail comes.
--
-- Result: unused.

local _, online = live()
if online == 0 then call('HDEL', META, 'f', 't') end
return 1
