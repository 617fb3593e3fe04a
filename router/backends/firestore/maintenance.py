"""What sweepers, readiness and operators ask of the online store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.backends.firestore import queries, records
from router.backends.firestore import recipient as recipients
from router.backends.firestore.due_index import Index, Walk, beyond, until
from router.backends.firestore.migration import drop
from router.backends.firestore.names import recorded
from router.backends.firestore.recipient import Recipient
from router.backends.firestore.state import FirestoreState, by_user, ids_of
from router.backends.firestore.transactions import STEP_MESSAGES, Work, parts, together
from router.backends.firestore.wire import Document, deletion, only_if
from router.backends.recipient_limits import keeps_inbound
from router.backends.routing_rules import (
    LEAD_SECONDS,
    ORPHAN_SECONDS,
    UNDER_WAY_SECONDS,
    StoreRules,
    holds_move,
    implausible_ack,
)
from router.clock import MICROSECONDS, apart
from router.lifecycle import Event, State, step
from router.messages import Forgotten, HotUser, Queued, QueueTotals

ORPHANS_SECONDS = 10.0
MISDATED_SECONDS = 60.0
EPHEMERAL_SECONDS = 10.0
FORGET_SECONDS = 60.0
IDLE_SECONDS = 3600.0
"""How long after they left a user with an empty queue is forgotten."""


class FirestoreMaintenance:
    """``Maintenance`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self._state = state
        ids = f"{state.layout.collection}-ids"
        documents, users = state.layout.documents, state.layout.collection
        self._owed, self._orphans = Index(documents, ids, "owed"), Walk(state.clock, ORPHANS_SECONDS)
        self._misdated = Walk(state.clock, MISDATED_SECONDS)
        """For orphans that a wrong clock dated, which was set back since."""
        self._forgettable, self._forgetting = Index(documents, ids, "forget"), Walk(state.clock, FORGET_SECONDS)
        self._idle, self._idling = Index(documents, users, "idle_at"), Walk(state.clock, FORGET_SECONDS)
        self._stale, self._dropping = Index(documents, users, "ephemeral_due"), Walk(state.clock, EPHEMERAL_SECONDS)

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        now = self._state.clock.now()

        async def look(recipient: Recipient) -> HotUser:
            return await self._state.reader.hot_user(recipient, now)

        return await together(look, await self._busy(after, limit))

    async def _busy(self, after: str, limit: int) -> list[Recipient]:
        found = await self._state.reader.busy(after, limit)
        return [self._recipient(document) for document in found]

    def _recipient(self, document: Document) -> Recipient:
        return recipients.read(self._state.layout.user_of(document.name), document, cold_empty=False)

    async def poke(self, users: Sequence[str]) -> None:
        now = self._state.clock.now()

        def mark(work: Work) -> list[str]:
            work.recipient.end_leases(now)
            if work.known:
                work.recipient.poke_again(now)
            return work.recipient.nodes(now)

        nodes = await self._state.transactions.change_all(users, mark)
        await self._state.publish([(node, user) for user, own in nodes.items() for node in own])

    async def stop_poking(self, users: Sequence[str]) -> None:
        now = self._state.clock.now()

        def stop_poking(work: Work) -> None:
            if work.known and not work.recipient.live(now):
                work.recipient.stop_poking()

        await self._state.transactions.change_all(users, stop_poking)

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        state = await self._state.transactions.state(user)
        return await self._state.reader.unannounced(state, before, limit) if state else []

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        highest = {user: max(one.sequence for one in own) for user, own in by_user(messages).items()}

        def mark(work: Work) -> None:
            if work.known:
                work.recipient.announced = max(work.recipient.announced, highest[work.recipient.user])

        await self._state.transactions.change_all(highest, mark)

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now, own = self._state.keeper.leaving_at(), by_user(expired)

        async def forget(user: str) -> None:
            for part in parts(ids_of(own[user])):

                def step(work: Work, part: Sequence[str] = part) -> None:
                    forget_cold(work, part, now, self._state.rules)

                await self._state.transactions.change(user, part, step)

        await together(forget, own)

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._state.clock.now()
        found: list[Document] = []
        if self._orphans.due():
            found += await until(self._state.client, self._owed, now - ORPHAN_SECONDS * MICROSECONDS, limit)
            self._orphans.saw(len(found))
        if self._misdated.due():
            misdated = await beyond(self._state.client, self._owed, implausible_ack(now), limit)
            self._misdated.saw(len(misdated))
            found += misdated
        return [(record.user, record.id) for record in map(records.read, found[:limit])]

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        now = self._state.clock.now()
        for part in parts(ids):

            def step(work: Work, part: Sequence[str] = part) -> None:
                forget_orphans(work, part, now)

            await self._state.transactions.change(user, part, step)

    async def purge(self, limit: int, at: int) -> int:
        if at and self._forgetting.due():
            self._forgetting.saw(await self._forget_records(at, limit))
        if at and self._idling.due():
            self._idling.saw(await self._forget_recipients(at, limit))
        if not self._dropping.due():
            return 0
        cutoff = self._state.ephemeral_cutoff(self._state.clock.now())
        found = await until(self._state.client, self._stale, cutoff, limit, select=("ephemeral_due",))
        self._dropping.saw(len(found))

        async def drop(document: Document) -> int:
            return await self._drop(self._state.layout.user_of(document.name), cutoff)

        return sum(await together(drop, found))

    async def _forget_records(self, now: int, limit: int) -> int:
        found = await until(self._state.client, self._forgettable, now, limit, select=("forget",))
        # A record that this does not delete was routed again meanwhile, or the next round finds it.
        await self._state.writer.write([only_if(deletion(one.name), one.update_time) for one in found])
        return len(found)

    async def _forget_recipients(self, now: int, limit: int) -> int:
        before = now - int(IDLE_SECONDS * MICROSECONDS)
        found = await until(self._state.client, self._idle, before, limit, select=("idle_at",))

        def forget(work: Work) -> None:
            recipient = work.recipient
            kept = holds_move(recipient.move_until, now) or now < recipient.inbound_until <= keeps_inbound(now)
            if work.known and recipient.idle() and recipient.sequence <= now and not kept:
                work.forget()

        await self._state.transactions.change_all([self._state.layout.user_of(one.name) for one in found], forget)
        return len(found)

    async def _drop(self, user: str, cutoff: int) -> int:
        """Drop a user's ephemeral messages accepted at or before ``cutoff``; returns how many."""

        async def attempt(seconds: float) -> int:
            deadline = asyncio.get_running_loop().time() + seconds
            work = await self._state.transactions.load(user, [], deadline)
            stale = await self._state.reader.ephemeral(user, cutoff)
            last = stale[-1].fields["ephemeral_at"].integer_value if len(stale) == STEP_MESSAGES else cutoff
            following = await self._state.reader.next_ephemeral(user, last)
            drop(work, stale, self._state.keeper.leaving_at(), self._state.rules)
            work.recipient.ephemeral_at = following
            await self._state.transactions.commit(work, deadline)
            return len(stale)

        return await self._state.transactions.run(user, attempt)

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        state = await self._state.transactions.state(user)
        announced = state.announced if state else 0
        return (await self._state.reader.page(user, limit, 1 << 62, announced)).messages

    async def totals(self, user: str | None) -> QueueTotals:
        if user is not None:
            return await self._state.reader.totals_of(user)
        since: dict[str, int] = {}
        after = ""
        while page := await self._busy(after, queries.USERS):
            since |= {recipient.user: recipient.hot_since for recipient in page if recipient.hot}
            after = page[-1].user
        return await self._state.reader.totals(since)

    async def forget_user(self, user: str, limit: int) -> Forgotten:
        del limit  # the records of all users are read to find them, which is to be done once
        now, forgotten = self._state.clock.now(), 0
        for part in parts(await self._records_of(user)):

            def step(work: Work, part: Sequence[str] = part) -> int | None:
                return None if in_use(work.recipient, now) else forget_records(work, part)

            deleted = await self._state.transactions.change(user, part, step)
            if deleted is None:
                return Forgotten(forgotten, in_use=True)
            forgotten += deleted

        def forget(work: Work) -> Forgotten:
            if in_use(work.recipient, now):
                return Forgotten(forgotten, in_use=True)
            if work.known:
                work.forget()
            return Forgotten(forgotten, len(work.recipient.connections))

        return await self._state.transactions.change(user, [], forget)

    async def _records_of(self, user: str) -> list[str]:
        """The ids of all records of ``user``. No index leads to them, which would cost something with each message, so
        this reads the user in each record that there is."""
        layout = self._state.layout
        documents = self._state.client.list(layout.documents, f"{layout.collection}-ids", ("user",))
        own = [document.name async for document in documents if document.fields["user"].string_value == user]
        return [recorded(name.rpartition("/")[2]) for name in own]

    async def lead(self, owner: str) -> bool:
        now = self._state.clock.now()

        def take(work: Work) -> bool:
            leader = work.recipient
            if leader.move_owner not in ("", owner) and holds_move(leader.move_until, now):
                return False
            leader.move_owner, leader.move_until = owner, now + LEAD_SECONDS * MICROSECONDS
            return True

        # A migration lease, of nobody's mail: no user has this name.
        return await self._state.transactions.change("leader", [], take)

    async def probe(self) -> None:
        await self._state.client.probe(self._state.layout.user("probe"))

    async def compare_clocks(self) -> float:
        before = self._state.clock.now()
        theirs = await self._state.client.time(self._state.layout.user("probe"))
        return self._state.skew.measured(apart(before, self._state.clock.now(), theirs))


def in_use(recipient: Recipient, now: int) -> bool:
    """Whether mail is hot, a migrator holds the lease, or a pipeline may be writing to cold."""
    since = now - UNDER_WAY_SECONDS * MICROSECONDS
    writing = any(pending.sequence > since for pending in recipient.pending.values())
    return bool(recipient.hot) or writing or (recipient.move_owner != "" and holds_move(recipient.move_until, now))


def forget_records(work: Work, ids: Sequence[str]) -> int:
    """Delete the records of ``ids``; returns how many there were."""
    found = [work.records[id_] for id_ in ids if id_ in work.records]
    for record in found:
        record.state = State.UNKNOWN
        work.keep(record)
    return len(found)


def forget_cold(work: Work, ids: Sequence[str], now: int, rules: StoreRules) -> None:
    """Count these as acknowledged: retention is about to delete them from cold."""
    for id_ in ids:
        record = work.records.get(id_)
        if record is None:
            continue
        after = step(record.state, Event.EXPIRED).after
        if after is not record.state:
            record.end(after, now, rules)
            work.keep(record)
            work.recipient.leave_cold(record.size)
            work.recipient.pending.pop(id_, None)


def forget_orphans(work: Work, ids: Sequence[str], now: int) -> None:
    """Record that cold has no copies of these; ignored while a migrator holds the lease and may be about to write
    one."""
    if holds_move(work.recipient.move_until, now):
        return
    for id_ in ids:
        record = work.records.get(id_)
        if record is None:
            continue
        after = step(record.state, Event.CLEARED).after
        if after is not record.state:
            record.state = after
            work.keep(record)
