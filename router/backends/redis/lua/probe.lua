-- Write a key, to find out whether the server is a master and accepts writes.
--
-- KEYS  1 string  the same for all processes
-- ARGV  1 seconds after which the key expires
-- Result: unused.

redis.call('SET', KEYS[1], '', 'EX', ARGV[1])
return 1
