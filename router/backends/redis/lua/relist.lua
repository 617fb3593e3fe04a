-- Give those who were looked at their next time, or take them out, unless somebody has listed them anew meanwhile.
--
-- KEYS  1 zset  user by a number
-- ARGV  triples of user, the number it was seen with, and the next one, or nothing to take it out
-- Result: nothing that is looked at.

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
