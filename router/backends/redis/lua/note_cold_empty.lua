-- Record that cold is empty, which a fetch has seen. Ignored if mail may have come to cold since.
--
-- ARGV  2 the version of cold when the fetch read it
-- Result: 1 if recorded, else 0

adopt()
if call('HGET', META, 'v') ~= ARGV[2] or call('EXISTS', PENDING) == 1 then return 0 end
call('HSET', META, 'e', now, 'n', 0)
call('HDEL', META, 'z')
return 1
