-- Claim users of an index whose time has come: until the claim ends, no other caller gets them.
--
-- KEYS  1 zset  user by the time of the next look
-- ARGV  1 now   2 the claim ends   3 limit
-- Result: the users

local users = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, user in ipairs(users) do redis.call('ZADD', KEYS[1], ARGV[2], user) end
return users
