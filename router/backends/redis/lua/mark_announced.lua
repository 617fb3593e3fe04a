-- Record that push commands are published up to a sequence.
--
-- ARGV  2 the sequence
-- Result: unused.

if call('EXISTS', META) == 1 and tonumber(call('HGET', META, 'a') or 0) < tonumber(ARGV[2]) then
  call('HSET', META, 'a', ARGV[2])
end
return 1
