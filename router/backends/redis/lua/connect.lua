-- Register a connection, or register it again.
--
-- ARGV  2 id   3 lease_until   4 since   5 node   6 the most live connections   7 the key may be dropped after, ms
--       then id and lease_until of each that is replaced, unless its lease was renewed since
-- Result: how many others are live where those are too many, as a negative number; else 1 if mail may be waiting, or 0

local replaced = {}
for i = 8, #ARGV, 2 do replaced[ARGV[i]] = tonumber(ARGV[i + 1]) end
local others, ended = 0, {}
local held = call('HGETALL', CONNECTIONS)
for i = 1, #held, 2 do
  local lease_until = struct.unpack('>I7', held[i + 1])
  if lease_until <= now or replaced[held[i]] == lease_until then
    ended[#ended + 1] = held[i]
  elseif held[i] ~= ARGV[2] then
    others = others + 1
  end
end
if others >= tonumber(ARGV[6]) then return -others end
if #ended > 0 then call('HDEL', CONNECTIONS, unpack(ended)) end
local value = struct.pack('>I7I7', tonumber(ARGV[3]), tonumber(ARGV[4])) .. ARGV[5]
call('HSET', CONNECTIONS, ARGV[2], value)
call('PEXPIRE', CONNECTIONS, ARGV[7])
if call('HEXISTS', META, 'v') == 0 then cold_changed() end
-- A new connection: the next message pokes all of them, unless mail waits that all are poked for.
if hot_count() == 0 and cold_is_empty() then
  call('HDEL', META, 'f', 't')
  return 0
end
call('HSET', META, 'p', now)
keep_cut(next_cut(cut_at()))
return 1
