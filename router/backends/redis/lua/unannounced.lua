-- Hot messages without a push command, the oldest first.
--
-- ARGV  2 queued before   3 limit   4 the most bytes
-- Result: highest announced sequence, {id, place, body, …}

local before, limit, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local announced = tonumber(call('HGET', META, 'a') or 0)
local candidates = {}
for _, lane in ipairs({{-EXPRESS, '(0'}, {0, '+inf'}}) do
  local found = call('ZRANGEBYSCORE', QUEUE, '(' .. string.format('%.0f', announced + lane[1]), lane[2],
    'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #found, 2 do
    candidates[#candidates + 1] = {id = found[i], place = found[i + 1], sequence = tonumber(found[i + 1]) - lane[1]}
  end
end
table.sort(candidates, function(one, other) return one.sequence < other.sequence end)

local result, size = {}, 0
for _, message in ipairs(candidates) do
  local record = record_of(message.id)
  -- `mark_announced` covers all messages up to a sequence, so stop at the first message that is too young.
  if #result == 3 * limit or (record.queued_at or record.number) > before then break end
  if record.ephemeral == 0 then
    local body = call('HGET', BODIES, message.id)
    if body then
      size = size + #body - HEADER
      if #result > 0 and size > max_bytes then break end
      result[#result + 1], result[#result + 2], result[#result + 3] = message.id, message.place, body
    end
  end
end
return {announced, result}
