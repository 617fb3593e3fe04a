"""The mutants: what each is called, where it is, and what it changes."""

from __future__ import annotations

from dataclasses import dataclass

QUEUE, MERGING, MIGRATING = "router/core/queue.py", "router/core/merging.py", "router/core/migrating.py"
ROUTING, OUTAGE, SETTLING = "router/core/routing.py", "router/core/outage.py", "router/core/settling.py"
SWEEPING, COPIES = "router/core/sweeping.py", "router/core/copies.py"
ACCEPTING, RULES = "router/core/accepting.py", "router/backends/rules.py"
EMBEDDED = "router/backends/embedded"
PAGES = "router/pages.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """``old``, which is once in the file, becomes ``new``."""

    name: str
    path: str
    old: str
    new: str
    also: Mutant | None = None
    """A change without which this one would tell nobody anything."""


MUTANTS = (
    # Reading and acknowledging.
    Mutant(
        "cold is read before hot",
        QUEUE,
        "            hot = await self._read_hot(user, bounds, found, again=first is not None)\n",
        "            early = await self._cold.read(user, *bounds)\n"
        "            early = replace(early, messages=found.note_cold(early.messages))\n"
        "            hot = await self._read_hot(user, bounds, found, again=first is not None)\n"
        "            if not hot.cold_empty:\n"
        "                ids = [queued.message.id for queued in early.messages]\n"
        "                acked = await self._online.acked(user, ids)\n"
        "                return [one for one in merge(hot, early, acked, *bounds) if not one.damaged]\n",
    ),
    Mutant(
        "copies in cold of acknowledged mail are served",
        QUEUE,
        "await self._online.acked(user, [*ids, *under_way]) if ids or under_way else set[str]()\n",
        "set[str]()\n",
    ),
    Mutant(
        "an acknowledgement leaves the copy in cold",
        QUEUE,
        "            await self._settler.delete_copies(user, owed)\n",
        "            await self._online.forget_orphans(user, owed)\n",
    ),
    Mutant(
        "cold first, then the record: an acknowledgement that dies between comes back",
        QUEUE,
        "        owed = await self._online.ack(user, unique)\n",
        "        await self._cold.delete(user, unique)\n        owed = await self._online.ack(user, unique)\n",
    ),
    Mutant(
        "what was served in an outage is acknowledged and not remembered",
        QUEUE,
        "            await self._tell_unknown(user, owed)\n",
        "",
    ),
    Mutant(
        "copies of acknowledged mail take the places of others",
        QUEUE,
        "        if not known or lane not in self._more or (",
        "        if True or not known or lane not in self._more or (",
    ),
    Mutant(
        "mail overtakes a cold write under way",
        MERGING,
        "        and message.sequence < unseen.get(message.message.lane, message.sequence + 1)\n",
        "",
    ),
    Mutant("of two copies the later sequence counts", MERGING, "or message.sequence < known.sequence)", "or False)"),
    Mutant(
        "one lane only: the express lane is forgotten in a batch",
        MERGING,
        "key=lambda queued: queued.place",
        "key=lambda queued: queued.sequence",
    ),
    Mutant(
        "express mail may take a whole page",
        PAGES,
        "    kept = fit(normal, share(limit), share(max_bytes))\n",
        "    kept = list[Queued]()\n",
    ),
    Mutant(
        "the newest normal mail has the places that are kept",
        PAGES,
        "    return [*express, *fit(normal, limit - len(express), max_bytes - size_of(express))]\n",
        "    return [*express, *normal[len(express) - limit :]]\n",
    ),
    Mutant(
        "the rest of a lane that was not read counts as read",
        MERGING,
        "        for lane in page.more:\n",
        "        for lane in page.more - {Lane.NORMAL}:\n",
    ),
    Mutant(
        "another user's acknowledgement deletes hot mail",
        f"{EMBEDDED}/moving.py",
        '        record = one(db, SQL["registered"], (id_, user))\n        if record is None:\n            # Also',
        '        user = (one(db, "SELECT user FROM route WHERE id = ?", (id_,)) or [user])[0]\n'
        '        record = one(db, SQL["registered"], (id_, user))\n        if record is None:\n            # Also',
    ),
    Mutant(
        "tombstone forgotten: acknowledged ids are unknown",
        f"{EMBEDDED}/moving.py",
        '            db.execute(SQL["set_state"], (after, rules.remember_until(now, keyed=bool(keyed)), id_, user))\n',
        '            db.execute(SQL["forget"], (id_, user))\n',
    ),
    Mutant(
        "an acknowledgement is answered before it is on disk",
        f"{EMBEDDED}/online.py",
        "return await self._database.write(lambda db: moving.ack(",
        "return await self._database.write_ordered(lambda db: moving.ack(",
    ),
    Mutant(
        "hot mail is served whatever became of it",
        QUEUE,
        "        marked = found.note_hot(page.messages)\n",
        "        marked = page.messages\n",
    ),
    Mutant(
        "cold mail is served whatever became of it",
        QUEUE,
        "        messages = found.note_cold([queued for queued in page.messages if lane in (None, queued.message.lane)])\n",
        "        messages = [queued for queued in page.messages if lane in (None, queued.message.lane)]\n",
    ),
    Mutant(
        "what is damaged in the ingress is routed, with a new checksum",
        ROUTING,
        "    if message is None or is_whole(message):\n        return delivery\n",
        "    if message is not None:\n"
        "        return structs.replace(delivery, message=structs.replace(message, checksum=None))\n"
        "    if message is None or is_whole(message):\n        return delivery\n",
    ),
    Mutant(
        "damaged mail leaves the queue without a dead letter",
        "router/core/damage.py",
        "            await self._refuser.refuse(queued, DeadReason.DAMAGED, DETAIL)\n",
        "",
    ),
    # Migrating.
    Mutant(
        "migration deletes before the write is confirmed",
        MIGRATING,
        "        try:\n            await self._put(messages)\n",
        "        await self._online.end_move(user, owner, messages)\n"
        "        try:\n            await self._put(messages)\n",
    ),
    Mutant(
        "migration ignores what cold refused",
        MIGRATING,
        "        while messages := await self._cold.put(messages):\n",
        "        while messages := (await self._cold.put(messages))[:0]:\n",
    ),
    Mutant("migrated mail is not announced", MIGRATING, "        if unannounced:\n", "        if False:\n"),
    Mutant(
        "ephemeral mail migrates",
        f"{EMBEDDED}/moving.py",
        "    dropped = _drop_ephemeral(db, user, now, rules)\n",
        "    dropped = 0\n",
    ),
    Mutant(
        "a migrator does not mark what it takes",
        f"{EMBEDDED}/sql/hot.sql",
        "UPDATE route SET state = 4 WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state = 0;",
        "UPDATE route SET state = 4 WHERE id IN (SELECT value FROM json_each(?)) AND user = ? AND state = 9;",
    ),
    # Routing.
    Mutant(
        "the ingress is told before the message is routed",
        ROUTING,
        "        routed = await self._ask(readable)\n",
        "        await self._ack(readable)\n        routed = await self._ask(readable)\n",
    ),
    Mutant(
        "the ingress is told before the cold write",
        ROUTING,
        "        refused = await self._copies.write(owed)\n",
        "        await self._ack([delivery for delivery, _ in stored])\n"
        "        refused = await self._copies.write(owed)\n",
    ),
    Mutant(
        "the push command goes out before the cold write",
        ROUTING,
        "        refused = await self._copies.write(owed)\n",
        "        await self._announce([message_of(delivery) for delivery, result in stored])\n"
        "        refused = await self._copies.write(owed)\n",
    ),
    Mutant(
        "what cold refused is dropped",
        COPIES,
        "            return {queued.message.name for queued in await self._cold.put(messages)}\n",
        "            return {queued.message.name for queued in (await self._cold.put(messages))[:0]}\n",
    ),
    Mutant(
        "one recipient's messages are worked on at once",
        ROUTING,
        "is not None:\n                waiting.append(delivery)\n",
        "is not None and False:\n                waiting.append(delivery)\n",
    ),
    Mutant(
        "what waited for a recipient starts in the wrong order",
        ROUTING,
        "for delivery in self._waiting.pop(recipient)]\n        if waited",
        "for delivery in reversed(self._waiting.pop(recipient))]\n        if waited",
    ),
    Mutant(
        "push commands are forgotten",
        ROUTING,
        "        if messages:\n            async with asyncio.timeout(CALL_SECONDS):\n                await self._push",
        "        if messages and False:\n            async with asyncio.timeout(CALL_SECONDS):\n                await self._push",
    ),
    Mutant(
        "dead letters go nowhere",
        "router/core/refusing.py",
        "        await self._letters.publish([letter])\n",
        "",
    ),
    Mutant(
        "an outage of a dependency uses up a message's tries",
        ROUTING,
        "no try of theirs.\n                left = self._undone(batch)\n",
        "no try of theirs.\n                tries += 1\n"
        "                left = [d for d in self._undone(batch) if not await self._blame(d, tries, OSError())]\n",
    ),
    Mutant(
        "a dead letter that cannot be published stops its recipient for good",
        ROUTING,
        "        except (Unavailable, TimeoutError):\n            return False\n"
        "        except Exception as failure:  # noqa: BLE001 - it is blamed again later; its recipient must not stay busy for ever\n"
        '            self._reports.bug("dead letters", failure)\n'
        "            return False\n",
        "        except ZeroDivisionError:\n            return False\n",
    ),
    Mutant(
        "settling takes all its calls within the time of one",
        SETTLING,
        "            settled = await self._online.settle(written)\n",
        "            settled = await self._online.settle(written)\n"
        "            for queued in settled.acked:\n"
        "                await self._cold.delete(queued.message.recipient, [queued.message.id])\n"
        "                await self._online.forget_orphans(queued.message.recipient, [queued.message.id])\n",
    ),
    Mutant(
        "mail acknowledged before it was settled stays in cold",
        SETTLING,
        "        await self._delete(settled.acked)\n",
        "",
    ),
    Mutant(
        "write-through writes nothing",
        ROUTING,
        "            return self._write_through and not message_of(delivery).ephemeral\n",
        "            return False\n",
    ),
    # An online store that is away.
    Mutant(
        "ephemeral mail goes cold in an outage",
        OUTAGE,
        "        if _ephemeral(delivery):",
        "        if False:",
    ),
    Mutant(
        "an outage ends before the store has been told",
        OUTAGE,
        "        self.lasts = bool(self._owed) or bool(self._placed)\n",
        "        self.lasts = False\n",
    ),
    # The store's own rules.
    Mutant(
        "sequences come from the node's clock alone",
        RULES,
        "    return max(highest + 1, now)\n",
        "    return now\n",
    ),
    Mutant(
        "a redelivery is a new message",
        f"{EMBEDDED}/sql/hot.sql",
        "INSERT OR IGNORE INTO route (id, user,",
        "INSERT OR REPLACE INTO route (id, user,",
    ),
    Mutant(
        "a copy of an outage ends the write that has its place",
        RULES,
        "    return state is State.PENDING and queued.sequence > sequence\n",
        "    return False\n",
    ),
    Mutant(
        "of two copies in cold the first one written stays",
        f"{EMBEDDED}/sql/cold.sql",
        "    sequence = min(sequence, excluded.sequence),\n    envelope",
        "    sequence = sequence,\n    envelope",
    ),
    Mutant(
        "expired ephemeral mail is served",
        f"{EMBEDDED}/online.py",
        "        cutoff = self._rules.ephemeral_cutoff(now)\n",
        "        cutoff = 0\n",
    ),
    Mutant(
        "copies of acknowledged mail are left to nobody",
        SWEEPING,
        "for user, message_id in await self._online.orphans(PAGE_MESSAGES):",
        "for user, message_id in (await self._online.orphans(PAGE_MESSAGES))[:0]:",
    ),
    Mutant(
        "what a pipeline wrote to cold without the store, and died, is left to nobody",
        SWEEPING,
        "        untold = await self._cold.untold(now - UNTOLD_SECONDS * MICROSECONDS, PAGE_MESSAGES)\n",
        "        untold = list[Queued]()\n",
    ),
    Mutant(
        "mail of a user whose node died is not moved",
        SWEEPING,
        "        return Due(migrate=user.hot > 0, hush=True)\n",
        "        return Due(hush=True)\n",
    ),
    Mutant(
        "lost pokes are not repeated",
        SWEEPING,
        "    poke = _waits(",
        "    poke = False and _waits(",
    ),
    Mutant(
        "a page of cold that has more behind it counts as the end",
        MERGING,
        "    if hot.more or cold.more:\n        return False\n",
        "    if hot.more:\n        return False\n",
    ),
    Mutant(
        "a page that was cut short answers the poke",
        SWEEPING,
        "    if user.fetched and user.cut_at:\n        return abs(",
        "    if user.fetched and user.cut_at:\n        return False and abs(",
    ),
    # Presence and pokes.
    Mutant(
        "presence is removed by the old socket's close",
        f"{EMBEDDED}/sql/presence.sql",
        "DELETE FROM presence WHERE user = ? AND id = ?;",
        "DELETE FROM presence WHERE user = ? AND id >= '' AND ? IS NOT NULL;",
    ),
    Mutant(
        "leases never run out",
        RULES,
        "        return now + int(self.lease_seconds * MICROSECONDS)\n",
        "        return now + 10**15\n",
    ),
    Mutant(
        "who connects is not told of mail that waits",
        f"{EMBEDDED}/presence.py",
        "            return bool(waiting)\n",
        "            return False\n",
    ),
    Mutant(
        "a fetch is not noted: the next message is not poked for",
        f"{EMBEDDED}/sql/hot.sql",
        "UPDATE recipient SET fetched = 1, cut_at = ? WHERE user = ?;",
        "UPDATE recipient SET cut_at = ? WHERE user = ?;",
    ),
    Mutant(
        "mail that was settled for a user who came online is not poked for",
        f"{EMBEDDED}/moving.py",
        "    pokes = [poke for recipient in recipients.values() for poke in recipient.poke(now)]\n",
        "    pokes: Pokes = []\n",
    ),
    # The ingress.
    Mutant(
        "a message is accepted before it is on disk",
        f"{EMBEDDED}/ingress.py",
        '        await self._database.write(lambda db: db.execute(SQL["publish"], row).lastrowid)\n',
        '        await self._database.write_ordered(lambda db: db.execute(SQL["publish"], row).lastrowid)\n',
    ),
    Mutant(
        "202 though the publish failed",
        ACCEPTING,
        "        await self._producer.publish(\n"
        "            Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)\n"
        "        )\n",
        "        try:\n"
        "            await self._producer.publish(\n"
        "                Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now, keyed, summed)\n"
        "            )\n"
        "        except Exception:\n"
        "            pass\n",
    ),
    Mutant(
        "a repeated Idempotency-Key gets a new id",
        ACCEPTING,
        "            id_ = ids.keyed_id(self._secret, sender, read.recipient, ids.parse_key(idempotency_key))\n",
        "            id_ = ids.new_id(now, self._entropy(10))\n",
    ),
    Mutant(
        "retention believes its clock",
        SWEEPING,
        "        at, agreed = self._keeper.deleting_at(), self._keeper.agreed_seconds\n",
        "        at, agreed = self._clock.now(), 1e9\n",
    ),
    Mutant(
        "records of ids are forgotten by a clock that is believed",
        SWEEPING,
        "self._online.purge(PAGE_MESSAGES, self._keeper.deleting_at())",
        "self._online.purge(PAGE_MESSAGES, self._clock.now())",
    ),
    Mutant(
        "one acknowledgement is taken for all before it",
        f"{EMBEDDED}/sql/ingress.sql",
        "DELETE FROM ingress WHERE number = ?;",
        "DELETE FROM ingress WHERE number <= ?;",
    ),
    Mutant(
        "a successor starts behind what its predecessor had taken",
        f"{EMBEDDED}/ingress.py",
        '        (self._found,) = self._database.read(lambda db: one(db, SQL["last"], ()))\n',
        '        (self._found,) = self._database.read(lambda db: one(db, SQL["last"], ()))\n'
        "        self._cursor = self._found\n",
    ),
    Mutant(
        "a consumer that nobody wakes sleeps on",
        f"{EMBEDDED}/ingress.py",
        "                async with asyncio.timeout(LOOK_SECONDS):\n",
        "                async with asyncio.timeout(None):\n",
    ),
)
