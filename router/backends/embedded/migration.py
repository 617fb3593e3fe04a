"""Moves hot mail to cold."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.backends.embedded.cold import put
from router.backends.embedded.departures import drop
from router.backends.embedded.presence import nodes_of
from router.backends.embedded.push import announce
from router.backends.embedded.queue import acked as acked_of
from router.backends.embedded.recipients import HOT as SQL
from router.backends.embedded.recipients import count
from router.backends.embedded.rows import ANY_LANE, hot_message, json_list, one
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import MOVE_LEASE_SECONDS, holds_move
from router.checksum import is_whole
from router.clock import MICROSECONDS
from router.messages import Lane, Move, MoveRefused, Queued
from router.pages import Page

STEP_MESSAGES = 100
STEP_BYTES = 512 * 1024
"""What one transaction moves at most where it does all of a move, so that nobody else waits for long."""


class EmbeddedMigration:
    """``Migration`` over SQLite."""

    def __init__(self, state: EmbeddedState) -> None:
        self._state = state

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now, leaving_at = self._state.clock.now(), self._state.keeper.leaving_at()
        return await self._state.database.write_ordered(
            lambda db: begin_move(
                db, user, owner, limit, max_bytes, now, leaving_at, self._state, online_too=online_too
            )
        )

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # the state of each message says whether it still moves
        return await self._state.database.write_ordered(lambda db: end_move(db, user, moved))

    async def release_move(self, user: str, owner: str) -> None:
        await self._state.database.write_ordered(
            lambda db: db.execute(SQL["release_move_lease"], (user, owner)).rowcount
        )


def begin_move(
    db: sqlite3.Connection,
    user: str,
    owner: str,
    limit: int,
    max_bytes: int,
    now: int,
    leaving_at: int,
    state: EmbeddedState,
    *,
    online_too: bool,
) -> Move | MoveRefused:
    lease = one(db, SQL["move_lease"], (user,))
    if lease is None:
        return Move([], 0, False)
    holder, until, announced = lease
    if holder not in ("", owner) and holds_move(until, now):
        return MoveRefused.BUSY
    if not online_too and nodes_of(db, [user], now):
        return MoveRefused.ONLINE
    dropped = _drop_ephemeral(db, user, leaving_at, state)
    if state.direct:
        limit, max_bytes = min(limit, STEP_MESSAGES), min(max_bytes, STEP_BYTES)
    rows = db.execute(SQL["read"], (user, ANY_LANE, now, limit + 1))
    page = Page(limit, max_bytes).take(hot_message(user, row, announced) for row in rows)
    whole, left = [], page.messages
    if state.direct:
        whole = [queued for queued in page.messages if is_whole(queued.message)]
        left = [queued for queued in page.messages if not is_whole(queued.message)]
    if whole:
        _move(db, user, whole, now, state)
    if left:
        db.execute(SQL["take_move_lease"], (owner, now + MOVE_LEASE_SECONDS * MICROSECONDS, user))
        db.execute(SQL["mark_moving"], (json_list([queued.message.id for queued in left]), user))
    return Move(left, dropped, bool(page.more), whole)


def _drop_ephemeral(db: sqlite3.Connection, user: str, now: int, state: EmbeddedState) -> int:
    found = db.execute(SQL["ephemeral"], (user,)).fetchall()
    drop(db, found, now, state)
    return len(found)


def _move(db: sqlite3.Connection, user: str, queued: Sequence[Queued], now: int, state: EmbeddedState) -> None:
    """Move ``queued`` to cold, with their push commands."""
    put(db, state.keeper.all_dated(queued))
    end_move(db, user, queued)
    if state.announces:
        announce(db, [one.message for one in queued if not one.announced], now)


def end_move(db: sqlite3.Connection, user: str, moved: Sequence[Queued]) -> list[str]:
    """Take ``moved`` out of hot; returns the ids that were acknowledged meanwhile."""
    # One statement for the batch, not several for each message, so that a migration is fast. A message that was
    # acknowledged meanwhile, or that another migrator has moved, is not in hot any more, and its state stays.
    ids = [queued.message.id for queued in moved]
    acked = acked_of(db, user, ids)
    left = sum(
        db.execute(SQL["remove_some"], (user, lane.value, json_list(sequences))).rowcount
        for lane in Lane
        if (sequences := [queued.sequence for queued in moved if queued.message.lane is lane])
    )
    arrived = [size for (size,) in db.execute(SQL["end_moving"], (json_list(ids), user))]
    size = sum(arrived)
    count(db, user, hot=-left, hot_bytes=-size, cold=len(arrived), cold_bytes=size, cold_changed=True)
    return [id_ for id_ in ids if id_ in acked]
