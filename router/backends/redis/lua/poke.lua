-- Poke every live connection again, fetched or not. This poke stands for a page that was cut short too.
--
-- ARGV  2 the channels' prefix   3 user
-- Result: nothing that is looked at.

if call('EXISTS', META) == 1 then
  poke_all(judge_live(), ARGV[2], ARGV[3])
  keep_cut(0)
end
return 1
