"""Deliberate bugs of the vendors' backends; the runs of the topology ``vendors`` must catch them."""

from __future__ import annotations

from tests.sim.mutations import Mutant

LUA, REDIS = "router/backends/redis/lua", "router/backends/redis"
PUBSUB, FIRESTORE = "router/backends/pubsub", "router/backends/firestore"

MUTANTS = (
    Mutant(
        "Redis: a redelivery is a new message",
        f"{LUA}/route.lua",
        "  local known = record_of(id)\n",
        "  local known = nil\n",
    ),
    Mutant(
        "Redis: sequences come from the clock alone",
        f"{LUA}/route.lua",
        "      sequence = math.max(sequence + 1, now)\n",
        "      sequence = now\n",
    ),
    Mutant(
        "Redis: leases never run out",
        f"{LUA}/prelude.lua",
        "    if struct.unpack('>I7', held[i + 1]) > now then\n      nodes",
        "    if true then\n      nodes",
    ),
    Mutant(
        "Redis: an acknowledged id is forgotten",
        f"{LUA}/prelude.lua",
        "  keep_record(id, record)\n  call('RPUSH'",
        "  call('HDEL', IDS, id)\n  call('RPUSH'",
    ),
    Mutant(
        "Redis: a fetch is not noted: the next message is not poked for",
        f"{LUA}/prelude.lua",
        "call('HDEL', META, 'f') == 1\n",
        "call('HGET', META, 'f') == '0'\n",
    ),
    Mutant(
        "Redis: cold is called empty whatever has come since",
        f"{LUA}/note_cold_empty.lua",
        "call('HGET', META, 'v') ~= ARGV[2] or call('EXISTS', PENDING) == 1",
        "false",
    ),
    Mutant(
        "Redis: what one master believed of cold, the next one does",
        f"{LUA}/prelude.lua",
        "  if known[1] == reign() then return end\n",
        "  if known[1] then return end\n",
    ),
    Mutant(
        "Redis: mail on its way to cold is not on record",
        f"{LUA}/route.lua",
        "        call('HSET', PENDING, id, place_of(lane, sequence))\n",
        "",
    ),
    Mutant(
        "Redis: mail acknowledged during its move is not told of",
        f"{LUA}/end_move.lua",
        "    acked[#acked + 1] = id\n",
        "",
    ),
    Mutant(
        "Redis: the express lane has the places of the normal one",
        f"{LUA}/prelude.lua",
        "  return lane == 0 and sequence - EXPRESS or sequence\n",
        "  return sequence\n",
    ),
    Mutant(
        "Redis: normal mail beside a full express lane is read from its second message on",
        f"{LUA}/prelude.lua",
        "    walk(call('ZCOUNT', QUEUE, '-inf', '(0'), cutoff, add)\n",
        "    walk(call('ZCOUNT', QUEUE, '-inf', '(0') + 1, cutoff, add)\n",
    ),
    Mutant(
        "Redis: a server that has forgotten the scripts is not sent them",
        f"{REDIS}/client.py",
        "                    if not (again := not_run(phases, results)):\n",
        "                    if not (again := []):\n",
    ),
    Mutant(
        "Redis: a walk takes a user out who was listed anew",
        f"{LUA}/relist.lua",
        "  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) == tonumber(ARGV[i + 1]) then\n",
        "  if true then\n",
    ),
    Mutant(
        "Pub/Sub: requests of one key overtake one another",
        f"{PUBSUB}/publishing.py",
        "                if key:\n                    self._busy.add(key)\n",
        "                if key:\n                    pass\n",
    ),
    Mutant(
        "Pub/Sub: what was not confirmed counts as published",
        f"{PUBSUB}/publishing.py",
        "        except Unavailable as unavailable:\n            error = unavailable\n",
        "        except Unavailable:\n            pass\n",
    ),
    Mutant(
        "Pub/Sub: leases are not extended",
        f"{PUBSUB}/ingress.py",
        "            await self._settling.extend(list(self._leases), LEASE_SECONDS)\n",
        "            await self._settling.extend([], LEASE_SECONDS)\n",
    ),
    Mutant(
        "Pub/Sub: what is received is acknowledged at once",
        f"{PUBSUB}/ingress.py",
        "        self._failure = None\n        self._arrived.set()\n        while",
        "        self._settling.ack([each.ack_id for each in received])\n"
        "        self._failure = None\n        self._arrived.set()\n        while",
    ),
    Mutant(
        "Firestore: a later copy in cold writes over an earlier one",
        f"{FIRESTORE}/cold.py",
        "[only_if(self._written(queued), None) for queued in messages]",
        "[self._written(queued) for queued in messages]",
    ),
    Mutant(
        "Firestore: a write that was refused counts as done",
        f"{FIRESTORE}/writing.py",
        "        for item, error in failed:\n            item.resolve(error)\n",
        "        for item, _ in failed:\n            item.resolve(None)\n",
    ),
    Mutant(
        "Firestore: a step commits whatever others have changed meanwhile",
        f"{FIRESTORE}/transactions.py",
        "            own = [only_if(recipients.write(path, self.recipient, now), self._update_time)]\n",
        "            own = [recipients.write(path, self.recipient, now)]\n",
    ),
    Mutant(
        "Firestore: a step that is repeated forgets the pokes that it owed",
        f"{FIRESTORE}/online.py",
        "            owed.update(pokes)\n",
        "            owed.clear()\n            owed.update(pokes)\n",
    ),
    Mutant(
        "Firestore: cold mail is read in the order in which it was queued",
        f"{FIRESTORE}/cold.py",
        'query = Query(self._messages, "place", len(there) + page.places + 1, above=above)',
        'query = Query(self._messages, "queued_at", len(there) + page.places + 1)',
    ),
    Mutant(
        "Firestore: what a TTL policy may delete is mail that still counts",
        f"{FIRESTORE}/cold.py",
        "queued_at + self._retention + BACKSTOP_SECONDS * MICROSECONDS",
        "queued_at + BACKSTOP_SECONDS",
    ),
)
