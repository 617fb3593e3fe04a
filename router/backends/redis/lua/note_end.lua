-- A fetch has come to the end of both tiers; believed unless a later one has begun, or the user has acknowledged since.
--
-- ARGV  2 the mark under which its first look counts as cut short
-- Result: nothing that is looked at.

if call('HGET', META, 't') == ARGV[2] then call('HDEL', META, 't') end
return 1
