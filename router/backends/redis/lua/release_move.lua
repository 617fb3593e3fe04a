-- A migrator gives up the migration lease.
--
-- ARGV  2 owner
-- Result: nothing that is looked at.

if call('HGET', META, 'o') == ARGV[2] then call('HDEL', META, 'o', 'u') end
return 1
