-- Poke every live connection, fetched or not.
--
-- ARGV  2 the channels' prefix   3 user
-- Result: nothing that is looked at.

if call('EXISTS', META) == 1 then poke_all(judge_live(), ARGV[2], ARGV[3]) end
return 1
