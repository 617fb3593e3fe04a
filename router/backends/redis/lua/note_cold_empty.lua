-- Cold was read and found empty; believed only while nothing has come since.
--
-- ARGV  2 the version of cold that was read
-- Result: 1 if it is believed

adopt()
if call('HGET', META, 'v') ~= ARGV[2] or call('EXISTS', PENDING) == 1 then return 0 end
call('HSET', META, 'e', now, 'n', 0)
call('HDEL', META, 'z')
return 1
