-- Begins every script that works on one user: the user's keys, and those of the shared functions that it uses
-- (scripts.py).
--
-- KEYS, all with the user as hash tag
--   1 META        hash    what is known of the user; see docs/redis.md for its fields
--   2 CONNECTIONS hash    connection id -> lease_until, since (7 bytes each), node
--   3 IDS         hash    message id -> record of each routed message, until its tombstone ends
--   4 QUEUE       zset    message id by place: the hot queue in the order in which it is read
--   5 BODIES      hash    message id -> 21 bytes of header and the envelope, of each message in QUEUE
--   6 PENDING     hash    message id -> place: cold writes that are not confirmed
--   7 EPHEMERAL   zset    message id by accepted_at: the ephemeral ones of QUEUE
--   8 OWED        zset    message id by the earliest time of its acknowledgement: orphans
--   9 GONE        list    ids of tombstones, the first to end first
--  10 GONE_KEYED  list    the same for messages with an Idempotency-Key, whose tombstones last longer
-- ARGV[1] is always the caller's time. Times are µs since 1970 by the caller's clock, never the server's.
--
-- A record is one byte of state, lane, keyed and ephemeral; 7 bytes of a number: the sequence, or in a tombstone the
-- time when it ends; and, if the message is in a queue, 7 more bytes: queued_at (hot), or the size of its envelope
-- (cold, or pending). A record of an earlier version has no size, which then counts as 0. A place is the sequence, less
-- EXPRESS for the express lane, so that one zset holds both lanes in order.

local META, CONNECTIONS, IDS, QUEUE, BODIES, PENDING, EPHEMERAL, OWED, GONE, GONE_KEYED = unpack(KEYS)
local now = tonumber(ARGV[1])
local call = redis.call

-- lifecycle.State
local HOT, ON_ITS_WAY, COLD, ACKED, DOUBLE, ACKED_OWED = 0, 1, 2, 3, 4, 5
local EXPRESS = 9e15 -- less than 2^53, so that every place is a whole number in a double
local DAY = 86400e6
local SECOND = 1e6
local ORPHAN = 60e6 -- routing_rules.ORPHAN_SECONDS
local IMPLAUSIBLE = 300e6 -- routing_rules.IMPLAUSIBLE_SECONDS
local COLD_EMPTY = 60e6
local PENDING_LOST = 600e6 -- by then a pipeline has confirmed a write, or the ingress has redelivered its message
local MOVE = 3 * 60e6 -- routing_rules.PLAUSIBLE_LEASES times routing_rules.MOVE_LEASE_SECONDS
local INBOUND = 60e6 -- recipient_limits.PLAUSIBLE_INBOUND_SECONDS
local WEEK = 7 * DAY -- recipient_limits.KEPT_INBOUND_SECONDS
local HEADER = 21
local CHUNK = 16
local PART = 5 -- pages.PART

local function place_of(lane, sequence)
  return lane == 0 and sequence - EXPRESS or sequence
end

-- The record of one message, or nil. If the server has evicted the record of a hot message, return one made from its
-- place, with the state DOUBLE, since nobody knows whether cold has a copy.
local function record_of(id)
  local value = call('HGET', IDS, id)
  if value then
    local flags, number = struct.unpack('>BI7', value)
    local second = #value > 8 and struct.unpack('>I7', value, 9) or nil
    local state = flags % 8
    return {
      state = state, lane = math.floor(flags / 8) % 2, keyed = math.floor(flags / 16) % 2,
      ephemeral = math.floor(flags / 32) % 2, number = number,
      queued_at = second, size = (state == ON_ITS_WAY or state == COLD) and second or 0,
    }
  end
  local place = tonumber(call('ZSCORE', QUEUE, id))
  if place then
    local lane, sequence = 1, place
    if place < 0 then lane, sequence = 0, place + EXPRESS end
    return {
      state = DOUBLE, lane = lane, keyed = 0, ephemeral = call('ZSCORE', EPHEMERAL, id) and 1 or 0,
      number = sequence, queued_at = sequence, size = 0,
    }
  end
end

local function keep_record(id, record)
  local flags = record.state + 8 * record.lane + 16 * record.keyed + 32 * record.ephemeral
  local value = struct.pack('>BI7', flags, record.number)
  if record.state == HOT or record.state == DOUBLE then
    value = value .. struct.pack('>I7', record.queued_at)
  elseif record.state == ON_ITS_WAY or record.state == COLD then
    value = value .. struct.pack('>I7', record.size)
  end
  call('HSET', IDS, id, value)
end

-- Enter an orphan: cold has or may get a copy of this acknowledged message. `at`: the earliest time that it may be, or
-- 0 if unknown. Dated by a clock that is ahead, the orphan would wait until the others have reached that time.
local function enter_orphan(id, at)
  call('ZADD', OWED, at > 0 and at or now, id)
end

-- Make the record of a message that has left all queues a tombstone until `until_plain`, or `until_keyed` if it is
-- keyed.
local function bury(id, record, until_plain, until_keyed)
  record.state, record.number = ACKED, record.keyed == 1 and until_keyed or until_plain
  keep_record(id, record)
  call('RPUSH', record.keyed == 1 and GONE_KEYED or GONE, id)
end

-- Delete up to `limit` tombstones of a list that end at or before `at`; returns when the next one ends, or nil.
local function prune(list, limit, at)
  for _ = 1, limit do
    local id = call('LINDEX', list, 0)
    if not id then return nil end
    local record = record_of(id)
    if record and record.state == ACKED then
      if record.number > at then return record.number end
      call('HDEL', IDS, id)
    end
    call('LPOP', list)
  end
  return at
end

-- Cold may get a copy of a hot message: increase the version.
local function cold_may_change()
  local version = tonumber(call('HGET', META, 'v') or 0)
  -- Not less than the clock, so that no version repeats after the store has lost its data.
  call('HSET', META, 'v', math.max(version + 1, now))
end

-- Mail has come to cold, or may have: increase the version, and no longer count cold as empty.
local function cold_changed()
  cold_may_change()
  call('HDEL', META, 'e')
end

-- The bytes of all envelopes of QUEUE, counted from BODIES.
local function hot_bytes()
  local size, start = 0, 0
  while call('EXISTS', BODIES) == 1 do
    local ids = call('ZRANGE', QUEUE, start, start + CHUNK - 1)
    if #ids == 0 then break end
    for _, id in ipairs(ids) do size = size + math.max(0, call('HSTRLEN', BODIES, id) - HEADER) end
    start = start + CHUNK
  end
  return size
end

-- How many messages are hot. If META disagrees with QUEUE, the server has evicted one of the two: correct META, and let
-- the next fetch read cold, which may hold what is missing here.
local function hot_count()
  local count = call('ZCARD', QUEUE)
  local believed = call('HMGET', META, 'h', 's')
  if tonumber(believed[1] or 0) ~= count then
    local normal = tonumber(call('ZREVRANGEBYSCORE', QUEUE, '+inf', 0, 'WITHSCORES', 'LIMIT', 0, 1)[2] or 0)
    local express = tonumber(call('ZREVRANGEBYSCORE', QUEUE, '(0', '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2] or -EXPRESS)
    call('HSET', META, 'h', count, 's', math.max(tonumber(believed[2] or 0), normal, express + EXPRESS))
    cold_changed()
    if count == 0 then call('DEL', BODIES, EPHEMERAL) end
    call('HSET', META, 'b', hot_bytes())
  end
  return count
end

local function add_to_meta(field, amount)
  if amount ~= 0 and call('HINCRBY', META, field, amount) < 0 then call('HSET', META, field, 0) end
end

-- Add `messages` and their `bytes` to the counts of cold; negative to subtract. With no messages left, clear the bytes:
-- a node of an earlier version counts messages only.
local function count_cold(messages, bytes)
  add_to_meta('n', messages)
  add_to_meta('z', bytes)
  if messages < 0 and call('HGET', META, 'n') == '0' then call('HDEL', META, 'z') end
end

-- Take a message out of the hot queue; returns the bytes of its envelope.
local function take_out(id, record)
  local size = call('HSTRLEN', BODIES, id)
  call('ZREM', QUEUE, id)
  call('HDEL', BODIES, id)
  if record.ephemeral == 1 then call('ZREM', EPHEMERAL, id) end
  return math.max(0, size - HEADER)
end

-- The nodes that hold live connections, the number of these, the ids of connections whose leases ran out, and when the
-- last of these did.
local function live()
  local nodes, count, ended, last = {}, 0, {}, 0
  local held = call('HGETALL', CONNECTIONS)
  for i = 1, #held, 2 do
    if struct.unpack('>I7', held[i + 1]) > now then
      nodes[string.sub(held[i + 1], 15)] = true
      count = count + 1
    else
      ended[#ended + 1] = held[i]
      last = math.max(last, struct.unpack('>I7', held[i + 1]))
    end
  end
  return nodes, count, ended, last
end

-- Poke all nodes; `channel` is the prefix of their channels. Sets the poke flag (META.f = 0), which a read resets.
local function poke_all(nodes, channel, user)
  call('HSET', META, 'p', now, 'f', 0)
  for node in pairs(nodes) do call('PUBLISH', channel .. node, user) end
end

-- Poke for new mail, unless the user has not fetched since the last poke.
local function poke_new(nodes, channel, user)
  if next(nodes) and call('HGET', META, 'f') ~= '0' then poke_all(nodes, channel, user) end
end

-- The mark of the last page that was cut short: when it was read, or when the user acknowledged after it. 0 if a fetch
-- has reached the end since.
local function cut_at()
  return tonumber(call('HGET', META, 't') or 0)
end

local function keep_cut(at)
  if at > 0 then call('HSET', META, 't', string.format('%.0f', at)) else call('HDEL', META, 't') end
end

-- routing_rules.next_cut: a mark that differs from the one before.
local function next_cut(before)
  return now <= before and before < now + SECOND and before + 1 or now
end

-- The reign of this master: its replication id, which changes when the server starts, and when a replica becomes the
-- master. Empty if the server does not say.
local function reign()
  local told = string.match(call('INFO', 'replication'), 'master_replid:(%w+)')
  return told and string.sub(told, 1, 16) or ''
end

-- A new reign may have lost the last writes of the one before: the end of its log, or what was not replicated. So this
-- user's keys may be old, and lack what has happened in cold since. There are four such things:
--   (a) Mail may have come to cold: cold no longer counts as empty.
--   (b) Pokes for that mail may be lost: poke connected users once more, and again after COLD_EMPTY µs (META.l), for mail
--       that the old master still takes before it knows of this one.
--   (c) Hot messages up to the sequence in META.x may have a copy in cold: see `may_be_double`.
--   (d) Pending cold writes up to META.x may be done, and their messages even acknowledged; PENDING_LOST after META.y
--       they count as lost: see read.lua.
local function begin_reign(sequence)
  call('HSET', META, 'r', reign(), 'x', sequence or 0, 'y', now)
end

local adopted = false
local function adopt()
  if adopted then return end
  local known = call('HMGET', META, 'r', 's')
  if not known[1] and call('EXISTS', META) == 0 then return end
  adopted = true
  if known[1] == reign() then return end
  begin_reign(known[2])
  cold_changed()
  if call('EXISTS', CONNECTIONS) == 1 then
    keep_cut(next_cut(cut_at()))
    if known[1] then call('HSET', META, 'l', now) end
  end
end

-- Whether cold is known to be empty. That counts for COLD_EMPTY µs, by any clock, and only in the reign in which it was
-- noted: a frozen master can have taken mail after another one took over, which does not hear of that.
local function cold_is_empty()
  adopt()
  local held = call('HMGET', META, 'e', 'r')
  local noted = tonumber(held[1] or '')
  return noted and held[2] ~= '' and math.abs(now - noted) < COLD_EMPTY and call('EXISTS', PENDING) == 0
end

-- Whether cold may have a copy of a message whose record says HOT.
local double_up_to
local function may_be_double(record)
  adopt()
  double_up_to = double_up_to or tonumber(call('HGET', META, 'x') or 0)
  return record.number <= double_up_to
end

-- The first read of a fetch: reset the poke flag, so that new mail pokes again. Returns the mark under which the page
-- counts as cut short, or 0 (routing_rules.cut_after).
local function answer_pokes(more, empty, online)
  local before, poked = cut_at(), call('HDEL', META, 'f') == 1
  local after = 0
  if online and (more or (not empty and (poked or before > 0))) then after = next_cut(before) end
  if after ~= before then keep_cut(after) end
  return after
end

-- A connection has ended while others stay. If cold may have mail, which the ended one may have fetched without
-- acknowledging it, mark the page as cut short, so that a sweeper pokes the others. An earlier mark stays, so that its
-- poke is not delayed. Returns whether cold may have mail.
local function left_behind()
  if cold_is_empty() then return false end
  if cut_at() == 0 then keep_cut(now) end
  return true
end

-- Note since when the user is offline. Only operators read it, so that a key which somebody else wrote stops nothing.
local function note_offline(at)
  pcall(call, 'HSET', META, 'g', at)
end

-- Like `live`, but also remove connections whose leases ran out. A lease that ran out by the clock of one process has
-- ended for all: the connection registers again, and is poked for mail that went to cold meanwhile.
local function judge_live()
  local nodes, count, ended, last = live()
  if #ended > 0 then
    call('HDEL', CONNECTIONS, unpack(ended))
    if count > 0 then left_behind() else note_offline(last) end
  end
  return nodes, count
end

-- Call `add` with id, place and body of each message, in order from the rank `start` on, until it returns false. Leaves
-- out ephemeral messages accepted at or before `cutoff`.
local function walk(start, cutoff, add)
  local lost = 0
  while true do
    local step = call('ZRANGE', QUEUE, start, start + CHUNK - 1, 'WITHSCORES')
    if #step == 0 then break end
    start = start + CHUNK
    local ids = {}
    for i = 1, #step, 2 do ids[#ids + 1] = step[i] end
    for i, body in ipairs(call('HMGET', BODIES, unpack(ids))) do
      if not body then
        call('ZREM', QUEUE, ids[i])
        lost = lost + 1
      else
        local ephemeral = #body >= HEADER and string.byte(body, 17) % 2 == 1 -- one that is shorter is damaged
        if not (ephemeral and struct.unpack('>I8', body, 9) <= cutoff) and not add(ids[i], step[2 * i], body) then
          return
        end
      end
    end
    if lost > 0 then start, lost = start - lost, 0 end
  end
end

-- The first messages of the queue as id, place, body, …: at least one, and up to `limit` whose envelopes have
-- `max_bytes` together. And 1 if there are more, else 0.
local function page(limit, max_bytes)
  local found, size, more = {}, 0, 0
  walk(0, 0, function(id, place, body)
    size = size + #body - HEADER
    if #found == 3 * limit or (#found > 0 and size > max_bytes) then
      more = 1
      return false
    end
    found[#found + 1], found[#found + 2], found[#found + 3] = id, place, body
    return true
  end)
  return found, more
end

-- pages.share
local function share(whole)
  return math.max(1, math.floor(whole / PART))
end

-- pages.Head: the heads of both lanes as id, place, body, …; the lanes of which there is more (1 for express plus 2 for
-- normal mail); and whether all of the head fits into one page (pages.fits).
local function heads(limit, max_bytes, cutoff)
  local found, size, more = {}, 0, 0
  local lane, count, places, bytes = 1, {0, 0}, limit, max_bytes

  local function begin_normal()
    lane, places, bytes = 2, math.max(places, share(limit)), math.max(bytes, share(max_bytes))
  end

  local function add(id, place, body)
    if lane == 1 and string.sub(place, 1, 1) ~= '-' then begin_normal() end
    local length = #body - HEADER
    if places == 0 or (length > bytes and count[lane] > 0) then
      more = more + lane
      return false
    end
    found[#found + 1], found[#found + 2], found[#found + 3] = id, place, body
    size, count[lane], places, bytes = size + length, count[lane] + 1, places - 1, bytes - length
    return true
  end

  walk(0, cutoff, add)
  if more == 1 then
    begin_normal()
    walk(call('ZCOUNT', QUEUE, '-inf', '(0'), cutoff, add)
  end
  local fits = #found <= 3 * limit and (size <= max_bytes or (count[1] <= 1 and count[2] <= 1))
  return found, more, fits
end

-- routing_rules.holds_move: whether a migration lease that ends at `move_until` is still held. One given by a wrong clock is
-- not.
local function holds_move(move_until)
  return now < move_until and move_until <= now + MOVE
end

-- When the inbound budget is whole, until when an idle user is kept; 0 if a wrong clock charged it.
local function inbound_until()
  local at = tonumber(call('HGET', META, 'i') or 0)
  return at <= now + WEEK and at or 0
end

-- When a sweeper must look at the user's records again; 0 for never.
local function due(ephemeral_span)
  local at = 0
  local function no_later(time)
    if time and (at == 0 or time < at) then at = time end
  end
  local first = call('ZRANGE', EPHEMERAL, 0, 0, 'WITHSCORES')[2]
  no_later(first and tonumber(first) + ephemeral_span)
  first = call('ZRANGE', OWED, 0, 0, 'WITHSCORES')[2]
  no_later(first and tonumber(first) + ORPHAN)
  local last = call('ZRANGE', OWED, -1, -1, 'WITHSCORES')[2]
  no_later(last and tonumber(last) > now + IMPLAUSIBLE and now) -- routing_rules.implausible_ack
  for _, list in ipairs({GONE, GONE_KEYED}) do
    local id = call('LINDEX', list, 0)
    local record = id and record_of(id)
    no_later(id and (record and record.state == ACKED and record.number or now))
  end
  if call('EXISTS', IDS, QUEUE, PENDING, CONNECTIONS) > 0 then
    no_later(now + DAY)
  elseif call('EXISTS', META) == 1 then
    local held = call('HMGET', META, 's', 'u')
    local move_until = tonumber(held[2] or 0)
    no_later(math.max(now, tonumber(held[1] or 0) + 1, holds_move(move_until) and move_until or 0, inbound_until()))
  end
  return at
end

