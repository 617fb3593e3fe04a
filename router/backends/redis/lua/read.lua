-- The head of the hot queue, and what a reader must know of cold.
--
-- ARGV  2 limit   3 the most bytes   4 ephemeral messages accepted until then have expired
--       5 whether this answers the pokes before it: from here on new mail is poked again
-- Result: more (0 or 1), cold is empty (0 or 1), version of cold, announced up to which sequence,
--         {id, place, body, …}, {id, place, …} of the cold writes under way

if ARGV[5] == '1' then call('HDEL', META, 'f') end
local count = hot_count()
local found, more = page(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if call('ZCARD', QUEUE) ~= count then hot_count() end
local held = call('HMGET', META, 'v', 'a')
return {
  more, cold_is_empty() and 1 or 0, tonumber(held[1] or 0), tonumber(held[2] or 0), found, call('HGETALL', PENDING),
}
