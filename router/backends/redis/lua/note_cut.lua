-- A fetch has left out what is there, though its first look did not count as cut short.
--
-- Result: nothing that is looked at.

if call('EXISTS', CONNECTIONS) == 1 then keep_cut(next_cut(cut_at())) end
return 1
