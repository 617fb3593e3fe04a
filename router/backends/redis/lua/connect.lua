-- Register a connection, or register it again.
--
-- ARGV  2 id   3 lease_until   4 since   5 node   6 the most live connections   7 the key may be dropped after, ms
-- Result: how many others are live where those are too many, as a negative number; else 1 if mail may be waiting, or 0

local others, expired = 0, {}
local held = call('HGETALL', CONNECTIONS)
for i = 1, #held, 2 do
  if struct.unpack('>I7', held[i + 1]) <= now then
    expired[#expired + 1] = held[i]
  elseif held[i] ~= ARGV[2] then
    others = others + 1
  end
end
if others >= tonumber(ARGV[6]) then return -others end
if #expired > 0 then call('HDEL', CONNECTIONS, unpack(expired)) end
local value = struct.pack('>I7I7', tonumber(ARGV[3]), tonumber(ARGV[4])) .. ARGV[5]
call('HSET', CONNECTIONS, ARGV[2], value)
call('PEXPIRE', CONNECTIONS, ARGV[7])
if call('HEXISTS', META, 'v') == 0 then cold_changed() end
if hot_count() == 0 and cold_is_empty() then
  call('HDEL', META, 'f') -- the next message pokes all connections
  return 0
end
-- This one is poked now. If a poke of the others is unanswered, that stays so: it may be lost, and is sent again.
call('HSET', META, 'p', now)
return 1
