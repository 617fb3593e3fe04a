-- Delete some records of the user, and after the last one all else, unless somebody works on their mail.
--
-- ARGV  2 limit   3 a cold write that is pending with a higher sequence than this may be under way
-- Result: 1 if somebody works on it, so that nothing was deleted, else 0; records and connections that were deleted; 1 if
--         there are more records, else 0

local limit, since = tonumber(ARGV[2]), tonumber(ARGV[3])
local function in_use()
  if call('EXISTS', QUEUE) == 1 or holds_move(tonumber(call('HGET', META, 'u') or 0)) then return true end
  for _, value in ipairs(call('HVALS', PENDING)) do
    local place = tonumber(value)
    if (place < 0 and place + EXPRESS or place) > since then return true end
  end
end
if in_use() then return {1, 0, 0, 0} end

local ids = call('HSCAN', IDS, '0', 'COUNT', limit)[2]
for i = 1, #ids, 2 do call('HDEL', IDS, ids[i]) end
local records = #ids / 2
if call('EXISTS', IDS) == 1 then return {0, records, 0, 1} end
local connections = #call('HGETALL', CONNECTIONS) / 2
call('DEL', META, CONNECTIONS, BODIES, PENDING, EPHEMERAL, OWED, GONE, GONE_KEYED)
return {0, records, connections, 0}
