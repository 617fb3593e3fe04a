-- Extend leases.
--
-- ARGV  2 lease_until   3 Redis may drop the key after, ms; then the connections' ids
-- Result: 1 if the user has hot mail, an unanswered poke or a page that was cut short, else 0; then for each connection
--         1, or 0 if it is unknown or its lease has run out

adopt()
local adopted_at = tonumber(call('HGET', META, 'l') or now)
if math.abs(now - adopted_at) >= COLD_EMPTY then
  keep_cut(next_cut(cut_at()))
  call('HDEL', META, 'l')
end
judge_live() -- removes ended leases here: the index of leases lists a user only by the last one
local held = call('HMGET', META, 'f', 't')
local results = {(call('EXISTS', QUEUE) == 1 or held[1] == '0' or held[2]) and 1 or 0}
for i = 4, #ARGV do
  local value = call('HGET', CONNECTIONS, ARGV[i])
  local alive = value and struct.unpack('>I7', value) > now
  if alive then
    call('HSET', CONNECTIONS, ARGV[i], struct.pack('>I7', tonumber(ARGV[2])) .. string.sub(value, 8))
  end
  results[#results + 1] = alive and 1 or 0
end
call('PEXPIRE', CONNECTIONS, ARGV[3])
return results
