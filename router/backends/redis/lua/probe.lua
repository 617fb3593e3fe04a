-- Write, as everything else does: a server that is not a master, or refuses writes, says so.
--
-- KEYS  1 string  the same for all who ask
-- ARGV  1 when it is gone again, in s
-- Result: nothing that is looked at.

redis.call('SET', KEYS[1], '', 'EX', ARGV[1])
return 1
