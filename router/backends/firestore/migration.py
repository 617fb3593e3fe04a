"""Moves hot mail to cold. The steps below the class are pure functions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.backends.firestore.documents import queued_message
from router.backends.firestore.names import document_id
from router.backends.firestore.records import ANYHOW, record_of
from router.backends.firestore.state import FirestoreState, ids_of
from router.backends.firestore.transactions import STEP_MESSAGES, Work, parts
from router.backends.firestore.wire import Document, deletion
from router.backends.routing_rules import MOVE_LEASE_SECONDS, StoreRules, holds_move
from router.clock import MICROSECONDS
from router.lifecycle import IN_HOT, Event, State, step
from router.messages import Move, MoveRefused, Queued


class FirestoreMigration:
    """``Migration`` over Firestore."""

    def __init__(self, state: FirestoreState) -> None:
        self._state = state

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now, leaving_at = self._state.clock.now(), self._state.keeper.leaving_at()

        async def attempt(seconds: float) -> Move | MoveRefused:
            deadline = asyncio.get_running_loop().time() + seconds
            work = await self._state.transactions.load(user, [], deadline)
            refused = refusal(work, owner, now, online_too=online_too)
            if refused is not None:
                return refused
            if not work.recipient.hot:
                return Move([], 0, False)
            ephemeral = await self._state.reader.ephemeral(user) if work.recipient.ephemeral_at else []
            page = await self._state.reader.page(user, limit, max_bytes, work.recipient.announced, ephemeral=False)
            drop(work, ephemeral, leaving_at, self._state.rules)
            if page.messages:
                take(work, owner, page.messages, now)
            await self._state.transactions.commit(work, deadline)
            return Move(page.messages, len(ephemeral), bool(page.more) or len(ephemeral) == STEP_MESSAGES)

        return await self._state.transactions.run(user, attempt)

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # the state of each message says whether it still moves
        hot = self._state.layout.hot_of(user)
        acked: list[str] = []
        for part in parts(moved):

            def step(work: Work, part: Sequence[Queued] = part) -> list[str]:
                return end_move(work, hot, part)

            acked += await self._state.transactions.change(user, ids_of(part), step)
        return acked

    async def release_move(self, user: str, owner: str) -> None:
        def release(work: Work) -> None:
            if work.recipient.move_owner == owner:
                work.recipient.move_owner, work.recipient.move_until = "", 0

        await self._state.transactions.change(user, [], release)


def refusal(work: Work, owner: str, now: int, *, online_too: bool) -> MoveRefused | None:
    """Why ``owner`` may not move this user's mail now."""
    recipient = work.recipient
    if recipient.move_owner not in ("", owner) and holds_move(recipient.move_until, now):
        return MoveRefused.BUSY
    recipient.end_leases(now)
    if recipient.connections and not online_too:
        return MoveRefused.ONLINE
    return None


def take(work: Work, owner: str, messages: Sequence[Queued], now: int) -> None:
    """Give ``owner`` the migration lease, and mark ``messages``, the oldest of hot, as moving."""
    work.recipient.move_owner = owner
    work.recipient.move_until = now + MOVE_LEASE_SECONDS * MICROSECONDS
    work.recipient.cold_changed()
    for queued in messages:
        work.recipient.double(queued.message.lane, queued.sequence)


def end_move(work: Work, hot: str, moved: Sequence[Queued]) -> list[str]:
    """Take ``moved`` out of hot; returns the ids that were acknowledged meanwhile."""
    acked: list[str] = []
    count = size = 0
    for queued in moved:
        record = work.records.get(queued.message.id)
        if record is None:
            continue
        after, owes_deletion = step(record.state, Event.MOVED)
        if owes_deletion:
            acked.append(record.id)
        elif record.state in IN_HOT:
            work.write(deletion(f"{hot}/{document_id(record.id)}"))
            record.state = after
            work.keep(record)
            count += 1
            size += record.size
            work.recipient.enter_cold(record.size)
    work.recipient.leave_hot(count, size)
    work.recipient.cold_changed()
    return acked


def drop(work: Work, ephemeral: Sequence[Document], now: int, rules: StoreRules) -> None:
    """Take these ephemeral messages out of the hot queue."""
    size = 0
    for document in ephemeral:
        queued = queued_message(work.recipient.user, document, 0)
        record = record_of(queued, State.HOT, ANYHOW)
        record.end(step(State.HOT, Event.DROPPED).after, now, rules)
        work.keep(record)
        work.write(deletion(document.name))
        size += queued.size
    work.recipient.leave_hot(len(ephemeral), size)
