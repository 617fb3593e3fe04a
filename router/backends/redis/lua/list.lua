-- List users in an index.
--
-- KEYS  1 zset  user by a number
-- ARGV  1 "always", or "if-less": keep a number that is lower; then pairs of number and user
-- Result: unused.

for i = 2, #ARGV, 2 do
  if ARGV[1] == 'if-less' then
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i], ARGV[i + 1])
  else
    redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
