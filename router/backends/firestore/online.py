"""The online store in Firestore: presence, hot queue, and the record of every id that was routed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from router.backends.firestore import moving, reading, records, routing
from router.backends.firestore import recipient as recipients
from router.backends.firestore.names import possible
from router.backends.firestore.presence import FirestorePresence
from router.backends.firestore.reading import Reader
from router.backends.firestore.recipient import Pokes, Recipient
from router.backends.firestore.transactions import STEP_MESSAGES, Transactions, Work, parts, together
from router.backends.firestore.walking import Index, Walk, beyond, until
from router.backends.firestore.wire import Document, deletion, only_if
from router.backends.firestore.writing import Writer
from router.backends.rules import ORPHAN_SECONDS, Skew, holds_move, implausible_ack, keeps_inbound
from router.clock import MICROSECONDS, Clock, apart
from router.interfaces import PokeBus
from router.lifecycle import GONE, Event, changes
from router.messages import Delivery, HotPage, HotUser, Move, MoveRefused, Queued, QueueTotals, Routed, Settled
from router.pages import Head, Page
from router.timekeeping import Timekeeper

T = TypeVar("T")

ORPHANS_SECONDS = 10.0
MISDATED_SECONDS = 60.0
EPHEMERAL_SECONDS = 10.0
FORGET_SECONDS = 60.0
IDLE_SECONDS = 3600.0
"""A user of whom nothing is queued is forgotten so long after they left."""


class FirestoreOnlineStore(FirestorePresence):
    """``OnlineStore`` over Firestore."""

    def __init__(
        self, transactions: Transactions, writer: Writer, pokes: PokeBus, clock: Clock, keeper: Timekeeper
    ) -> None:
        super().__init__(transactions, clock)
        self._writer = writer
        self._pokes = pokes
        self._keeper = keeper
        self._skew = Skew()
        self._reader = Reader(self._client, self._layout)
        ids = f"{self._layout.collection}-ids"
        documents, users = self._layout.documents, self._layout.collection
        self._owed, self._orphans = Index(documents, ids, "owed"), Walk(clock, ORPHANS_SECONDS)
        self._misdated = Walk(clock, MISDATED_SECONDS)
        """Those of a clock that was wrong and has been set back."""
        self._forgettable, self._forgetting = Index(documents, ids, "forget"), Walk(clock, FORGET_SECONDS)
        self._idle, self._idling = Index(documents, users, "idle_at"), Walk(clock, FORGET_SECONDS)
        self._stale, self._dropping = Index(documents, users, "ephemeral_due"), Walk(clock, EPHEMERAL_SECONDS)

    async def probe(self) -> None:
        await self._client.probe(self._layout.user("probe"))

    async def compare_clocks(self) -> float:
        before = self._clock.now()
        theirs = await self._client.time(self._layout.user("probe"))
        return self._skew.measured(apart(before, self._clock.now(), theirs))

    def _ephemeral_cutoff(self, now: int) -> int:
        """What was accepted at or before this has expired, by the clock of Firestore."""
        return self._rules.ephemeral_cutoff(now - self._skew.ahead)

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._clock.now()
        own: defaultdict[str, list[int]] = defaultdict(list)
        for index, delivery in enumerate(deliveries):
            own[routing.message_of(delivery).recipient].append(index)

        async def route(user: str) -> list[Routed]:
            return await self._route(user, [deliveries[index] for index in own[user]], now)

        routed = await together(route, own)
        results = dict(zip((index for indices in own.values() for index in indices), _flat(routed), strict=True))
        return [results[index] for index in range(len(deliveries))]

    async def _route(self, user: str, deliveries: Sequence[Delivery], now: int) -> list[Routed]:
        hot, at = self._layout.hot_of(user), self._keeper.deleting_at()
        results: list[Routed] = []
        for part in routing.steps(deliveries):

            def step(work: Work, part: Sequence[Delivery] = part) -> tuple[list[Routed], Pokes]:
                return routing.route(work, hot, part, now, at, self._rules, self._skew)

            ids = [routing.message_of(delivery).id for delivery in part]
            new = {id_ for id_, delivery in zip(ids, part, strict=True) if not delivery.delivered_before}
            results += await self._change_and_poke(user, ids, step, new=new)
        return results

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now, own = self._clock.now(), _by_user(messages)

        async def settle(user: str) -> list[Settled]:
            settled: list[Settled] = []
            for part in parts(own[user]):

                def step(work: Work, part: Sequence[Queued] = part) -> tuple[Settled, Pokes]:
                    return moving.settle(work, part, now)

                settled.append(await self._change_and_poke(user, _ids(part), step))
            return settled

        settled = list(_flat(await together(settle, own)))
        return Settled(list(_flat(one.acked for one in settled)), list(_flat(one.misplaced for one in settled)))

    async def _change_and_poke(
        self, user: str, ids: Iterable[str], step: Callable[[Work], tuple[T, Pokes]], *, new: Collection[str] = ()
    ) -> T:
        """A step that may owe pokes. Where its answer was lost it is repeated, and finds its own work done: what it
        owed the first time is not forgotten."""
        owed: set[tuple[str, str]] = set()

        def remember(work: Work) -> T:
            result, pokes = step(work)
            owed.update(pokes)
            return result

        result = await self._transactions.change(user, ids, remember, new=new)
        await self._publish(owed)
        return result

    async def _publish(self, pokes: Iterable[tuple[str, str]]) -> None:
        pokes = list(pokes)
        if pokes:
            await self._pokes.publish(pokes)

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        # Marked before the read: what this read misses comes after the mark, and is poked.
        now = self._clock.now()

        def look(work: Work) -> Recipient:
            if work.known and not again:
                work.recipient.look(now, limit, max_bytes)
            return work.recipient

        state = await self._transactions.change(user, [], look)
        # No walk comes by a place that nobody is going to write any more, and whoever fetches waits for it.
        before = self._rules.abandoned_before(self._keeper.deleting_at())
        for part in parts(state.abandoned(before)):
            state = await self._abandon(user, part, before)
        cut_at, since = state.cut_at, self._ephemeral_cutoff(now)
        page: Page = Head(limit, max_bytes)
        if state.hot:
            page = await self._reader.heads(user, limit, max_bytes, state.announced, since)
            # What left the queue before it was read is found in cold, of which only a later state knows.
            state = await self._transactions.state(user) or state
        return reading.hot_page(page, state, cut_at)

    async def _abandon(self, user: str, ids: Sequence[str], before: int) -> Recipient:
        def step(work: Work) -> Recipient:
            moving.abandon(work, ids, before)
            return work.recipient

        return await self._transactions.change(user, ids, step)

    async def note_end(self, user: str, cut_at: int) -> None:
        def note(work: Work) -> None:
            if work.recipient.cut_at == cut_at:
                work.recipient.cut_at = 0

        await self._transactions.change(user, [], note)

    async def note_cut(self, user: str) -> None:
        now = self._clock.now()

        def note(work: Work) -> None:
            if work.recipient.connections:
                work.recipient.move_cut(now)

        await self._transactions.change(user, [], note)

    async def acked(self, user: str, ids: Sequence[str]) -> set[str]:
        now = self._keeper.leaving_at()
        found = await self._transactions.records(user, [id_ for id_ in ids if possible(id_)])
        unowed = [record.id for record in found if record.state in changes(Event.FOUND)]
        for part in parts(unowed):
            await self._transactions.change(user, part, lambda work: moving.find(work, now))
        return {record.id for record in found if record.state in GONE}

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        now, hot = self._keeper.leaving_at(), self._layout.hot_of(user)
        owed: list[str] = []
        for part in parts([id_ for id_ in dict.fromkeys(ids) if possible(id_)]):

            def step(work: Work, part: Sequence[str] = part) -> list[str]:
                return moving.ack(work, hot, part, now, self._rules)

            owed += await self._transactions.change(user, part, step)
        return owed

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        return await self.ack(user, [queued.message.id for queued in damaged])

    async def note_cold_empty(self, user: str, version: int) -> None:
        def note(work: Work) -> None:
            recipient = work.recipient
            if work.known and recipient.cold_version == version and not recipient.pending:
                recipient.cold_empty, recipient.cold, recipient.cold_bytes = True, 0, 0

        await self._transactions.change(user, [], note)

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now, leaving_at = self._clock.now(), self._keeper.leaving_at()

        async def attempt(seconds: float) -> Move | MoveRefused:
            deadline = asyncio.get_running_loop().time() + seconds
            work = await self._transactions.load(user, [], deadline)
            refused = moving.refusal(work, owner, now, online_too=online_too)
            if refused is not None:
                return refused
            if not work.recipient.hot:
                return Move([], 0, False)
            ephemeral = await self._reader.ephemeral(user) if work.recipient.ephemeral_at else []
            page = await self._reader.page(user, limit, max_bytes, work.recipient.announced, ephemeral=False)
            moving.drop(work, ephemeral, leaving_at, self._rules)
            if page.messages:
                moving.take(work, owner, page.messages, now)
            await self._transactions.commit(work, deadline)
            return Move(page.messages, len(ephemeral), bool(page.more) or len(ephemeral) == STEP_MESSAGES)

        return await self._transactions.run(user, attempt)

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # each message's own state says whether it still moves
        hot = self._layout.hot_of(user)
        acked: list[str] = []
        for part in parts(moved):

            def step(work: Work, part: Sequence[Queued] = part) -> list[str]:
                return moving.end_move(work, hot, part)

            acked += await self._transactions.change(user, _ids(part), step)
        return acked

    async def release_move(self, user: str, owner: str) -> None:
        def release(work: Work) -> None:
            if work.recipient.move_owner == owner:
                work.recipient.move_owner, work.recipient.move_until = "", 0

        await self._transactions.change(user, [], release)

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        now = self._clock.now()

        async def look(recipient: Recipient) -> HotUser:
            return await self._reader.hot_user(recipient, now)

        return await together(look, await self._busy(after, limit))

    async def _busy(self, after: str, limit: int) -> list[Recipient]:
        found = await self._reader.busy(after, limit)
        return [self._recipient(document) for document in found]

    def _recipient(self, document: Document) -> Recipient:
        return recipients.read(self._layout.user_of(document.name), document, cold_empty=False)

    async def poke(self, users: Sequence[str]) -> None:
        await self._publish(await self._poke(users))

    async def hush(self, users: Sequence[str]) -> None:
        now = self._clock.now()

        def hush(work: Work) -> None:
            if work.known and not work.recipient.live(now):
                work.recipient.hush()

        await self._transactions.change_all(users, hush)

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        state = await self._transactions.state(user)
        return await self._reader.unannounced(state, before, limit) if state else []

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        highest = {user: max(one.sequence for one in own) for user, own in _by_user(messages).items()}

        def mark(work: Work) -> None:
            if work.known:
                work.recipient.announced = max(work.recipient.announced, highest[work.recipient.user])

        await self._transactions.change_all(highest, mark)

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now, own = self._keeper.leaving_at(), _by_user(expired)

        async def forget(user: str) -> None:
            for part in parts(_ids(own[user])):

                def step(work: Work, part: Sequence[str] = part) -> None:
                    moving.forget_cold(work, part, now, self._rules)

                await self._transactions.change(user, part, step)

        await together(forget, own)

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._clock.now()
        found: list[Document] = []
        if self._orphans.due():
            found += await until(self._client, self._owed, now - ORPHAN_SECONDS * MICROSECONDS, limit)
            self._orphans.saw(len(found))
        if self._misdated.due():
            misdated = await beyond(self._client, self._owed, implausible_ack(now), limit)
            self._misdated.saw(len(misdated))
            found += misdated
        return [(record.user, record.id) for record in map(records.read, found[:limit])]

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        now = self._clock.now()
        for part in parts(ids):

            def step(work: Work, part: Sequence[str] = part) -> None:
                moving.forget_orphans(work, part, now)

            await self._transactions.change(user, part, step)

    async def purge(self, limit: int, at: int) -> int:
        if at and self._forgetting.due():
            self._forgetting.saw(await self._forget_records(at, limit))
        if at and self._idling.due():
            self._idling.saw(await self._forget_recipients(at, limit))
        if not self._dropping.due():
            return 0
        cutoff = self._ephemeral_cutoff(self._clock.now())
        found = await until(self._client, self._stale, cutoff, limit, select=("ephemeral_due",))
        self._dropping.saw(len(found))

        async def drop(document: Document) -> int:
            return await self._drop(self._layout.user_of(document.name), cutoff)

        return sum(await together(drop, found))

    async def _forget_records(self, now: int, limit: int) -> int:
        found = await until(self._client, self._forgettable, now, limit, select=("forget",))
        # One that is not deleted was routed anew, or is found again.
        await self._writer.write([only_if(deletion(one.name), one.update_time) for one in found])
        return len(found)

    async def _forget_recipients(self, now: int, limit: int) -> int:
        before = now - int(IDLE_SECONDS * MICROSECONDS)
        found = await until(self._client, self._idle, before, limit, select=("idle_at",))

        def forget(work: Work) -> None:
            recipient = work.recipient
            kept = holds_move(recipient.move_until, now) or now < recipient.inbound_until <= keeps_inbound(now)
            if work.known and recipient.idle() and recipient.sequence <= now and not kept:
                work.forget()

        await self._transactions.change_all([self._layout.user_of(one.name) for one in found], forget)
        return len(found)

    async def _drop(self, user: str, cutoff: int) -> int:
        """Drop a user's ephemeral messages accepted at or before ``cutoff``; returns how many."""

        async def attempt(seconds: float) -> int:
            deadline = asyncio.get_running_loop().time() + seconds
            work = await self._transactions.load(user, [], deadline)
            stale = await self._reader.ephemeral(user, cutoff)
            last = stale[-1].fields["ephemeral_at"].integer_value if len(stale) == STEP_MESSAGES else cutoff
            following = await self._reader.next_ephemeral(user, last)
            moving.drop(work, stale, self._keeper.leaving_at(), self._rules)
            work.recipient.ephemeral_at = following
            await self._transactions.commit(work, deadline)
            return len(stale)

        return await self._transactions.run(user, attempt)

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        state = await self._transactions.state(user)
        announced = state.announced if state else 0
        return (await self._reader.page(user, limit, 1 << 62, announced)).messages

    async def totals(self, user: str | None) -> QueueTotals:
        if user is not None:
            return await self._reader.totals_of(user)
        since: dict[str, int] = {}
        after = ""
        while page := await self._busy(after, reading.USERS):
            since |= {recipient.user: recipient.hot_since for recipient in page if recipient.hot}
            after = page[-1].user
        return await self._reader.totals(since)


def _by_user(messages: Iterable[Queued]) -> dict[str, list[Queued]]:
    own: defaultdict[str, list[Queued]] = defaultdict(list)
    for queued in messages:
        own[queued.message.recipient].append(queued)
    return own


def _ids(messages: Iterable[Queued]) -> list[str]:
    return [queued.message.id for queued in messages]


def _flat(parts: Iterable[Iterable[T]]) -> Iterator[T]:
    return (item for part in parts for item in part)
