-- An id that a sender's Idempotency-Key made belongs to the recipient of the first message under it.
--
-- KEYS  1 string  the user whose id it is
-- ARGV  1 user   2 the claim is forgotten after, s
-- Result: 1 if the id is this user's, or 0

if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'EX', ARGV[2]) then return 1 end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
