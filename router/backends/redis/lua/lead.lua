-- Give one process the lead over all, or let it keep that.
--
-- KEYS  1 string  the process that leads
-- ARGV  1 the process that asks   2 milliseconds after which the key expires
-- Result: 1 if it leads, else 0

local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
