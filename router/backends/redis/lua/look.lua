-- What a sweeper, or an operator, needs to know of one user. Changes nothing, except that `hot_count` corrects META.
--
-- ARGV  2 µs after which an accepted ephemeral message expires
-- Result: live connections, hot messages, queued_at of the oldest, queued_at of the oldest without a push command,
--         time of the last poke, 1 if the user has fetched since, else 0, bytes of hot envelopes, when the records are
--         due, when the last page was cut short, or 0

local held = call('HMGET', META, 'p', 'f', 'b', 'a', 't')
local announced = tonumber(held[4] or 0)
local oldest, unannounced = 0, 0

local function queued_at(id, place)
  local record = record_of(id)
  return record and record.queued_at or (tonumber(place) % EXPRESS)
end

local function first(lowest, highest)
  local found = call('ZRANGEBYSCORE', QUEUE, lowest, highest, 'WITHSCORES', 'LIMIT', 0, 1)
  return found[1] and queued_at(found[1], found[2]) or nil
end

local function first_unannounced(offset, highest)
  local found = call('ZRANGEBYSCORE', QUEUE, '(' .. string.format('%.0f', announced + offset), highest,
    'WITHSCORES', 'LIMIT', 0, 100)
  for i = 1, #found, 2 do
    if not call('ZSCORE', EPHEMERAL, found[i]) then return queued_at(found[i], found[i + 1]) end
  end
end

local function earlier(one, other)
  if not one or not other then return one or other or 0 end
  return math.min(one, other)
end

local hot = hot_count()
if hot > 0 then
  oldest = earlier(first('-inf', '(0'), first(0, '+inf'))
  unannounced = earlier(first_unannounced(-EXPRESS, '(0'), first_unannounced(0, '+inf'))
end
local _, online = live()
return {
  online, hot, oldest, unannounced, tonumber(held[1] or 0), held[2] == '0' and 0 or 1, tonumber(held[3] or 0),
  due(tonumber(ARGV[2])), tonumber(held[5] or 0),
}
