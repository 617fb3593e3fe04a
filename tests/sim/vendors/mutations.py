"""Deliberate bugs of the vendors' backends; the runs of the topology ``vendors`` must catch them."""

from __future__ import annotations

from tests.support.mutation import Mutant, before, drop, in_function, in_script, replace

MUTANTS = (
    Mutant(
        "Redis: a redelivery is a new message",
        in_script("lua.route", replace("local known = record_of(id)", "local known = nil")),
    ),
    Mutant(
        "Redis: sequences come from the clock alone",
        in_script("lua.route", replace("sequence = math.max(sequence + 1, now)", "sequence = now")),
    ),
    Mutant(
        "Redis: leases never run out",
        in_script("redis.live", replace("struct.unpack('>I7', held[i + 1]) > now", "true")),
    ),
    Mutant(
        "Redis: an acknowledged id is forgotten",
        in_script("redis.bury", replace("keep_record(id, record)", "call('HDEL', IDS, id)")),
    ),
    Mutant(
        "Redis: a fetch is not noted: the next message is not poked for",
        in_script("redis.answer_pokes", replace("call('HDEL', META, 'f') == 1", "call('HGET', META, 'f') == '0'")),
    ),
    Mutant(
        "Redis: cold is called empty whatever has come since",
        in_script(
            "lua.note_cold_empty",
            replace("call('HGET', META, 'v') ~= ARGV[2] or call('EXISTS', PENDING) == 1", "false"),
        ),
    ),
    Mutant(
        "Redis: what one master believed of cold, the next one does",
        in_script("redis.adopt", replace("known[1] == reign()", "known[1]")),
    ),
    Mutant(
        "Redis: mail on its way to cold is not on record",
        in_script("lua.route", replace("call('HSET', PENDING, id, place_of(lane, sequence))", "")),
    ),
    Mutant(
        "Redis: mail acknowledged during its move is not told of",
        in_script("lua.end_move", replace("acked[#acked + 1] = id", "")),
    ),
    Mutant(
        "Redis: the express lane has the places of the normal one",
        in_script("redis.place_of", replace("lane == 0 and sequence - EXPRESS or sequence", "sequence")),
    ),
    Mutant(
        "Redis: normal mail beside a full express lane is read from its second message on",
        in_script(
            "redis.heads", replace("call('ZCOUNT', QUEUE, '-inf', '(0')", "call('ZCOUNT', QUEUE, '-inf', '(0') + 1")
        ),
    ),
    Mutant(
        "Redis: a server that has forgotten the scripts is not sent them",
        in_function("redis.Client.run", replace("not_run(...)", "[]")),
    ),
    Mutant(
        "Redis: a walk removes a user who was listed again",
        in_script(
            "lua.relist",
            replace("tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) == tonumber(ARGV[i + 1])", "true"),
        ),
    ),
    Mutant(
        "Pub/Sub: requests of one key overtake one another",
        in_function("Publisher._send_ready", drop("_busy.add(...)")),
    ),
    Mutant(
        "Pub/Sub: what was not confirmed counts as published",
        in_function("Publisher._send", drop("error = unavailable")),
    ),
    Mutant(
        "Pub/Sub: leases are not extended",
        in_function("PubSubIngressConsumer._keep_leases", replace("list(_leases)", "[]")),
    ),
    Mutant(
        "Pub/Sub: what is received is acknowledged at once",
        in_function(
            "PubSubIngressConsumer._took",
            before("_failure = None", "self._settling.ack([each.ack_id for each in received])"),
        ),
    ),
    Mutant(
        "Firestore: a later copy in cold writes over an earlier one",
        in_function("FirestoreColdQueue.put", replace("only_if(..., None)", "...")),
    ),
    Mutant(
        "Firestore: a write that was refused counts as done",
        in_function("Writer._send", replace("resolve(error)", "item.resolve(None)")),
    ),
    Mutant(
        "Firestore: a step commits whatever others have changed meanwhile",
        in_function(
            "Work.writes", replace("only_if(recipients.write(...), ...)", "recipients.write(path, self.recipient, now)")
        ),
    ),
    Mutant(
        "Firestore: a step that is repeated forgets the pokes that it owed",
        in_function("FirestoreState.change_and_poke.remember", before("owed.update(...)", "owed.clear()")),
    ),
    Mutant(
        "Firestore: cold mail is read in the order in which it was queued",
        in_function(
            "FirestoreColdQueue._all",
            replace(
                'Query(..., "place", ..., above=above)',
                'Query(self._messages, "queued_at", len(there) + page.places + 1)',
            ),
        ),
    ),
    Mutant(
        "Firestore: what a TTL policy may delete is mail that still counts",
        in_function(
            "FirestoreColdQueue._written",
            replace("... + _retention + BACKSTOP_SECONDS * MICROSECONDS", "queued.queued_at + BACKSTOP_SECONDS"),
        ),
    ),
    Mutant(
        "Redis: mail that is acknowledged gives no bytes back",
        in_script("lua.ack", replace("add_to_meta('b', -bytes)", ""), replace("-cold_bytes", "0")),
    ),
    Mutant(
        "Redis: the bytes of a redelivery are counted once more",
        in_script(
            "lua.route",
            replace(
                "if before and ephemeral == 0 then may_be_cold", "add_to_meta('z', size) if before then may_be_cold"
            ),
        ),
    ),
    Mutant(
        "Redis: the bytes of mail that moves to cold are counted no more",
        in_script("lua.end_move", replace("count_cold(moved, bytes)", "count_cold(moved, 0)")),
    ),
    Mutant(
        "Firestore: mail that is acknowledged gives no bytes back",
        in_function("firestore.ack", replace("leave_cold(...)", "recipient.leave_cold(0)")),
    ),
    Mutant(
        "Firestore: the bytes of a redelivery are counted once more",
        in_function("firestore._known", before("work.keep(record)", "work.recipient.cold_bytes += record.size")),
    ),
    Mutant(
        "Firestore: the bytes of mail that moves to cold are counted no more",
        in_function("firestore.end_move", replace("enter_cold(...)", "work.recipient.enter_cold(0)")),
    ),
)
