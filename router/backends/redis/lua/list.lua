-- List users in an index.
--
-- KEYS  1 zset  user by a number
-- ARGV  1 "always", or "if-less", which leaves those who have a lesser number; then pairs of number and user
-- Result: nothing that is looked at.

for i = 2, #ARGV, 2 do
  if ARGV[1] == 'if-less' then
    redis.call('ZADD', KEYS[1], 'LT', ARGV[i], ARGV[i + 1])
  else
    redis.call('ZADD', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return 1
