"""One user's hot queue: reading it and acknowledging from it. The steps below the class are pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from router.backends.firestore import queries
from router.backends.firestore.names import document_id, possible
from router.backends.firestore.recipient import Recipient
from router.backends.firestore.routing import effective_state
from router.backends.firestore.state import FirestoreState
from router.backends.firestore.transactions import STEP_MESSAGES, Work, parts
from router.backends.firestore.wire import deletion
from router.backends.routing_rules import StoreRules
from router.lifecycle import GONE, IN_COLD, Event, State, changes, step
from router.messages import HotPage, Queued
from router.pages import Head, Page


class FirestoreQueue:
    """``UserQueue`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self._state = state

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        # Reset the poke flag before the read: a message that the read misses comes later, and pokes.
        now = self._state.clock.now()

        def step(work: Work) -> Recipient:
            return work.recipient if again else look(work, now, limit, max_bytes)

        state = await self._state.transactions.change(user, [], step)
        return await self._page(user, state, limit, max_bytes, now)

    async def _page(self, user: str, state: Recipient, limit: int, max_bytes: int, now: int) -> HotPage:
        """The page, after the step that gave ``state``."""
        # No sweeper finds an abandoned place, so forget it here, where a fetch would wait for it.
        before = self._state.rules.abandoned_before(self._state.keeper.deleting_at())
        for part in parts(state.abandoned(before)):
            state = await self._abandon(user, part, before)
        cut_at, since = state.cut_at, self._state.ephemeral_cutoff(now)
        page: Page = Head(limit, max_bytes)
        if state.hot:
            page = await self._state.reader.heads(user, limit, max_bytes, state.announced, since)
            # A message that left hot before this read is in cold: only a state that is read after hot says so.
            state = await self._state.transactions.state(user) or state
        return queries.hot_page(page, state, cut_at)

    async def _abandon(self, user: str, ids: Sequence[str], before: int) -> Recipient:
        def step(work: Work) -> Recipient:
            abandon(work, ids, before)
            return work.recipient

        return await self._state.transactions.change(user, ids, step)

    async def note_end(self, user: str, cut_at: int) -> None:
        def note(work: Work) -> None:
            if work.recipient.cut_at == cut_at:
                work.recipient.cut_at = 0

        await self._state.transactions.change(user, [], note)

    async def note_cut(self, user: str) -> None:
        now = self._state.clock.now()

        def note(work: Work) -> None:
            if work.recipient.connections:
                work.recipient.move_cut(now)

        await self._state.transactions.change(user, [], note)

    async def acked(self, user: str, ids: Sequence[str], under_way: Sequence[str] = ()) -> set[str]:
        now = self._state.keeper.leaving_at()
        found = await self._state.transactions.records(user, [id_ for id_ in (*ids, *under_way) if possible(id_)])
        unowed = [record.id for record in found if record.state in changes(Event.FOUND)]
        for part in parts(unowed):
            await self._state.transactions.change(user, part, lambda work: find(work, now))
        return {record.id for record in found if record.state in GONE}

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        own = [id_ for id_ in dict.fromkeys(ids) if possible(id_)]
        owed = [await self._state.transactions.change(user, part, self._acking(user, part)) for part in parts(own)]
        return list(chain.from_iterable(owed))

    def _acking(self, user: str, ids: Sequence[str]) -> Callable[[Work], list[str]]:
        now, hot = self._state.keeper.leaving_at(), self._state.layout.hot_of(user)
        return lambda work: ack(work, hot, ids, now, self._state.rules)

    async def ack_and_read(
        self, user: str, ids: Sequence[str], limit: int, max_bytes: int
    ) -> tuple[list[str], HotPage]:
        # What is more than one step takes is acknowledged before.
        first, last = ids[:-STEP_MESSAGES], [id_ for id_ in dict.fromkeys(ids[-STEP_MESSAGES:]) if possible(id_)]
        owed, acking, now = await self.ack(user, first), self._acking(user, last), self._state.clock.now()

        def step(work: Work) -> tuple[list[str], Recipient]:
            return acking(work), look(work, now, limit, max_bytes)

        more, state = await self._state.transactions.change(user, last, step)
        return [*owed, *more], await self._page(user, state, limit, max_bytes, now)

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        return await self.ack(user, [queued.message.id for queued in damaged])

    async def note_cold_empty(self, user: str, version: int) -> None:
        def note(work: Work) -> None:
            recipient = work.recipient
            if work.known and recipient.cold_version == version and not recipient.pending:
                recipient.cold_empty, recipient.cold, recipient.cold_bytes = True, 0, 0

        await self._state.transactions.change(user, [], note)


def look(work: Work, now: int, limit: int, max_bytes: int) -> Recipient:
    """Mark the first read of a fetch; returns the user's state."""
    if work.known:
        work.recipient.look(now, limit, max_bytes)
    return work.recipient


def abandon(work: Work, ids: Sequence[str], before: int) -> None:
    """Forget the pending cold writes of ``ids`` with lower sequences than ``before``, which nobody is going to do."""
    recipient = work.recipient
    for id_ in [id_ for id_ in recipient.abandoned(before) if id_ in ids]:
        record = work.records.get(id_)
        del recipient.pending[id_]
        recipient.leave_cold(record.size if record else 0)
        if record is not None:
            record.state = step(record.state, Event.ABANDONED).after
            work.keep(record)


def find(work: Work, now: int) -> None:
    """Make orphans of these acknowledged messages, of which a fetch has found copies in cold."""
    for record in work.records.values():
        after = step(record.state, Event.FOUND).after
        if after is not record.state:
            record.state, record.acked_at = after, now
            work.keep(record)


def ack(work: Work, hot: str, ids: Sequence[str], now: int, rules: StoreRules) -> list[str]:
    """Acknowledge ``ids``; returns those of which cold may have a copy."""
    recipient = work.recipient
    if recipient.cut_at:
        recipient.move_cut(now)
    owed: list[str] = []
    left = size = 0
    for id_ in ids:
        record = work.records.get(id_)
        state = effective_state(work, record) if record else State.UNKNOWN
        after, owes_deletion = step(state, Event.ACKNOWLEDGED)
        if owes_deletion:
            owed.append(id_)
        if record is None or state in GONE:
            continue
        if state in IN_COLD:
            recipient.leave_cold(record.size)
            recipient.pending.pop(id_, None)
        else:
            work.write(deletion(f"{hot}/{document_id(id_)}"))
            left += 1
            size += record.size
        record.end(after, now, rules)
        work.keep(record)
    recipient.leave_hot(left, size)
    return owed
