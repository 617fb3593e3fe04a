-- Remove connections whose lease ran out. A lease that a wrong clock gave (routing_rules.implausible_lease) begins now.
--
-- ARGV  2 a lease that ends after this was given by a wrong clock   3 when a lease ends that begins now
-- Result: {1 if this removed the last live connection, 2 if the others must be poked (see `left_behind`), else 0;
--         when the last lease runs out, 0 if none is left}

local removed, last, ended = 0, 0, 0
local held = call('HGETALL', CONNECTIONS)
for i = 1, #held, 2 do
  local lease_until = struct.unpack('>I7', held[i + 1])
  if lease_until <= now then
    removed = removed + call('HDEL', CONNECTIONS, held[i])
    ended = math.max(ended, lease_until)
  else
    if lease_until > tonumber(ARGV[2]) then
      lease_until = tonumber(ARGV[3])
      call('HSET', CONNECTIONS, held[i], struct.pack('>I7', lease_until) .. string.sub(held[i + 1], 8))
    end
    last = math.max(last, lease_until)
  end
end
local owed = 0
if removed > 0 then owed = last == 0 and 1 or (left_behind() and 2 or 0) end
if owed == 1 then note_offline(ended) end
return {owed, last}
