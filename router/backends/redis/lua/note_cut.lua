-- Mark the user's page as cut short: a fetch has left mail out, although its first read set no mark.
--
-- Result: unused.

if call('EXISTS', CONNECTIONS) == 1 then keep_cut(next_cut(cut_at())) end
return 1
