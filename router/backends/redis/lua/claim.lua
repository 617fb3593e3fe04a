-- Take from an index those whose time has come, so that nobody else looks at them for a while.
--
-- KEYS  1 zset  user by the time of the next look
-- ARGV  1 now   2 the claim ends   3 limit
-- Result: the users

local users = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, user in ipairs(users) do redis.call('ZADD', KEYS[1], ARGV[2], user) end
return users
