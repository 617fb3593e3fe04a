-- What is known of one message, and of the attention of its recipient. Changes nothing.
--
-- ARGV  2 the id
-- Result: its record as state, lane, keyed, ephemeral, number, or nothing; the header of its body, or ''; the bytes of
--         its envelope; the messages of its lane in front of it; the pending cold writes of its lane in front of it;
--         time of the last poke; 1 if the user has fetched since, else 0; when the last page was cut short, or 0;
--         owner and end of the migration lease, if one is held, or '' and 0; highest announced sequence; when the last
--         connection was seen to end, or 0

local id = ARGV[2]
local record, header, size, ahead, pending = {}, '', 0, 0, 0
local known = record_of(id)
if known then
  record = {known.state, known.lane, known.keyed, known.ephemeral, known.number}
  local body = call('HGET', BODIES, id)
  if body then header, size = string.sub(body, 1, HEADER), math.max(0, #body - HEADER) else size = known.size end
  if known.state ~= ACKED and known.state ~= ACKED_OWED then
    local place = place_of(known.lane, known.number)
    ahead = call('ZCOUNT', QUEUE, known.lane == 0 and '-inf' or 0, '(' .. string.format('%.0f', place))
    for _, other in ipairs(call('HVALS', PENDING)) do
      local at = tonumber(other)
      if at < place and (at < 0) == (place < 0) then pending = pending + 1 end
    end
  end
end
local held = call('HMGET', META, 'p', 'f', 'o', 'u', 'a', 'g')
local moves = holds_move(tonumber(held[4] or 0))
return {
  record, header, size, ahead, pending, tonumber(held[1] or 0), held[2] == '0' and 0 or 1, cut_at(),
  moves and held[3] or '', moves and tonumber(held[4]) or 0, tonumber(held[5] or 0),
  tonumber(held[6] or 0),
}
