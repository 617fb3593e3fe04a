-- Do not poke again before new mail comes.

call('HDEL', META, 'f')
return 1
