-- Register a connection, or register it again.
--
-- ARGV  2 id   3 lease_until   4 since   5 node   6 the most live connections   7 Redis may drop the key after, ms;
--       then id and lease_until of each connection to replace; one whose lease was renewed since stays
-- Result: with too many other live connections, their number, negative; else 1 if mail may be waiting, or 0

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
call('HDEL', META, 'g') -- Redis may drop the key of connections, and then nobody sees them end
if call('HEXISTS', META, 'v') == 0 then cold_changed() end
-- Without waiting mail, reset the poke flag, so that the next message pokes the new connection too. Else this call
-- pokes it: count its page as cut short, so that a sweeper pokes again if no fetch follows.
if hot_count() == 0 and cold_is_empty() then
  call('HDEL', META, 'f', 't')
  return 0
end
call('HSET', META, 'p', now)
keep_cut(next_cut(cut_at()))
return 1
