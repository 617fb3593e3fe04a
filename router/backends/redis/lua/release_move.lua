-- Give up the migration lease, if `owner` holds it.
--
-- ARGV  2 owner
-- Result: unused.

if call('HGET', META, 'o') == ARGV[2] then call('HDEL', META, 'o', 'u') end
return 1
