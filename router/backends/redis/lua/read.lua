-- The heads of both lanes of the hot queue, and what a reader must know of cold.
--
-- ARGV  2 limit   3 the most bytes   4 ephemeral messages accepted until then have expired
--       5 whether this answers the pokes before it: from here on new mail is poked again
-- Result: the lanes of which there is more (heads), cold is empty (0 or 1), version of cold, announced up to which sequence,
--         whether somebody is connected, where that is asked (0 or 1), when a page counts as cut short, or 0,
--         {id, place, body, …}, {id, place, …} of the cold writes under way

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

-- Who has still to write what a lost reign was told of has done so by now; the rest, nobody can, and it would hold up
-- what stands behind it for ever.
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
