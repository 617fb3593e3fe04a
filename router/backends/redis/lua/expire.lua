-- Remove connections whose lease ran out.
--
-- Result: 1 if none is live any more because of it, or 0; when the last lease that is left runs out, 0 if none is left

local removed, last = 0, 0
local held = call('HGETALL', CONNECTIONS)
for i = 1, #held, 2 do
  local lease_until = struct.unpack('>I7', held[i + 1])
  if lease_until <= now then
    removed = removed + call('HDEL', CONNECTIONS, held[i])
  else
    last = math.max(last, lease_until)
  end
end
return {removed > 0 and last == 0 and 1 or 0, last}
