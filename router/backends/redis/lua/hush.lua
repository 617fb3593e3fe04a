-- Do not poke again before new mail comes.
--
-- Result: nothing that is looked at.

call('HDEL', META, 'f')
return 1
