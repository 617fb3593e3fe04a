-- Read the heads of both lanes of the hot queue, and what a reader must know of cold.
--
-- ARGV  2 limit   3 the most bytes   4 ephemeral messages accepted at or before this have expired
--       5 1 for the first read of a fetch: reset the poke flag, so that new mail pokes again, and mark a cut page; else 0
-- Result: the lanes of which hot has more (see `heads`), 1 if cold is empty, else 0, version of cold, highest announced
--         sequence, 1 if the user is connected (asked only if the page may leave mail out), else 0, the mark of the cut
--         page, or 0, {id, place, body, …}, {id, place, …} of the pending cold writes

local count = hot_count()
local found, more, fits = heads(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if call('ZCARD', QUEUE) ~= count then hot_count() end
local empty = cold_is_empty()
local held = call('HMGET', META, 'v', 'a', 'x', 'y')
local is_cut, online, cut = more > 0 or not fits, 0, 0
if ARGV[5] == '1' then
  if is_cut or not empty then online = call('EXISTS', CONNECTIONS) end
  cut = answer_pokes(is_cut, empty, online == 1)
end

-- Cold writes of an earlier reign are confirmed by now, or lost with it: nobody is going to confirm them, and they
-- would hold back the messages behind them for ever. Leave them out.
local pending, under_way = call('HGETALL', PENDING), {}
local lost = held[4] and now - tonumber(held[4]) > PENDING_LOST and tonumber(held[3]) or 0
for i = 1, #pending, 2 do
  if tonumber(pending[i + 1]) % EXPRESS > lost then
    under_way[#under_way + 1], under_way[#under_way + 2] = pending[i], pending[i + 1]
  end
end
return {
  more, empty and 1 or 0, tonumber(held[1] or 0), tonumber(held[2] or 0), online, cut, found, under_way,
}
