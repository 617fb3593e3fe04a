-- Clear the mark of a fetch that has reached the end of both tiers. Ignored if a later fetch has set another mark, or
-- the user has acknowledged since.
--
-- ARGV  2 the mark that its first read set
-- Result: unused.

if call('HGET', META, 't') == ARGV[2] then call('HDEL', META, 't') end
return 1
