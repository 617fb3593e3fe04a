-- Do not poke a user who is not connected again before new mail comes.
--
-- Result: nothing that is looked at.

local _, online = live()
if online == 0 then call('HDEL', META, 'f', 't') end
return 1
