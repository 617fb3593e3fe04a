-- Poke every live connection, whether the user has fetched or not. This poke also replaces the mark of a cut page.
--
-- ARGV  2 prefix of the channels   3 user
-- Result: unused.

if call('EXISTS', META) == 1 then
  poke_all(judge_live(), ARGV[2], ARGV[3])
  keep_cut(0)
end
return 1
