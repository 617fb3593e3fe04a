-- Give users of an index their next number, or remove them, unless another call has listed them since they were read.
--
-- KEYS  1 zset  user by a number
-- ARGV  triples of user, the number that was read, and the next one; empty to remove the user
-- Result: unused.

for i = 1, #ARGV, 3 do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) == tonumber(ARGV[i + 1]) then
    if ARGV[i + 2] == '' then
      redis.call('ZREM', KEYS[1], ARGV[i])
    else
      redis.call('ZADD', KEYS[1], ARGV[i + 2], ARGV[i])
    end
  end
end
return 1
