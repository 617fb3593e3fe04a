"""One user's hot queue: reading it and acknowledging from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from msgspec import structs

from router.backends.embedded.departures import gone_as, note_acknowledgement, remove
from router.backends.embedded.presence import is_connected
from router.backends.embedded.push import withdraw
from router.backends.embedded.recipients import HOT as SQL
from router.backends.embedded.recipients import count
from router.backends.embedded.rows import hot_message, integer, json_list, lane_of, one
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import StoreRules, cut_after, next_cut
from router.lifecycle import GONE, IN_COLD, Event, State, state_of, step
from router.messages import HotPage, Lane, Pending, Queued
from router.pages import NO_LANES, Head, fits, share

FEW = 10
"""An acknowledgement of this many may wait for other writes: one of more is of a long queue that is being emptied."""
HEAD_COLUMNS = 6
"""Number of leading columns of ``hot.page`` that are equal in all of its rows; the others are those of ``hot.read``."""


class EmbeddedQueue:
    """``UserQueue`` over SQLite. Only acknowledgements wait for the disk, since the client relies on them."""

    def __init__(self, state: EmbeddedState) -> None:
        self._state = state

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        now = self._state.clock.now()
        cutoff = self._state.rules.ephemeral_cutoff(now)
        found = self._state.database.read(lambda db: page_of(db, user, limit, max_bytes, cutoff, marked=again))
        if found is not None:
            return found
        # Reset the poke flag before the read: a message that the read misses comes later, and pokes.
        return await self._state.database.write_ordered(
            lambda db: mark_and_page_of(db, user, limit, max_bytes, cutoff, now)
        )

    async def note_end(self, user: str, cut_at: int) -> None:
        await self._state.database.write_ordered(lambda db: db.execute(SQL["ended"], (user, cut_at)).rowcount)

    async def note_cut(self, user: str) -> None:
        now = self._state.clock.now()
        await self._state.database.write_ordered(lambda db: note_cut(db, user, now))

    async def acked(self, user: str, ids: Sequence[str], under_way: Sequence[str] = ()) -> set[str]:
        found = self._state.database.read(lambda db: acked(db, user, [*ids, *under_way]))
        if unowed := [id_ for id_, is_unowed in found.items() if is_unowed]:
            names = json_list(unowed), user
            await self._state.database.write_ordered(lambda db: db.execute(SQL["found"], names).rowcount)
        if not (self._state.direct and under_way):
            return set(found)
        return set(found) | self._state.database.read(lambda db: left(db, user, under_way))

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        now = self._state.keeper.leaving_at()
        return await self._state.database.write(lambda db: self._leave(db, user, ids, now), patient=len(ids) <= FEW)

    async def ack_and_read(
        self, user: str, ids: Sequence[str], limit: int, max_bytes: int
    ) -> tuple[list[str], HotPage]:
        now, leaving = self._state.clock.now(), self._state.keeper.leaving_at()
        cutoff = self._state.rules.ephemeral_cutoff(now)

        def step(db: sqlite3.Connection) -> tuple[list[str], HotPage]:
            owed = self._leave(db, user, ids, leaving)
            return owed, mark_and_page_of(db, user, limit, max_bytes, cutoff, now)

        return await self._state.database.write(step, patient=len(ids) <= FEW)

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        now = self._state.keeper.leaving_at()
        return await self._state.database.write(
            lambda db: self._leave(db, user, records_of(db, user, damaged), now, damaged=True)
        )

    def _leave(
        self, db: sqlite3.Connection, user: str, ids: Sequence[str], now: int, *, damaged: bool = False
    ) -> list[str]:
        note_acknowledgement(db, user, now)
        if not self._state.direct:
            return ack(db, user, ids, now, self._state.rules, damaged=damaged)
        remove(db, user, ids, now, self._state, damaged=damaged)
        return []

    async def note_cold_empty(self, user: str, version: int) -> None:
        values = {"user": user, "version": version, "beside": not self._state.direct}
        await self._state.database.write_ordered(lambda db: db.execute(SQL["cold_is_empty"], values).rowcount)


def page_of(
    db: sqlite3.Connection, user: str, limit: int, max_bytes: int, cutoff: int, *, marked: bool = False
) -> HotPage | None:
    """The page, in one read of the file; ``None`` if the fetch must be marked first, as few must. ``marked``: it needs
    no mark, or has it."""
    rows = db.execute(SQL["page"], (marked, cutoff, user, limit + share(limit) + 1))
    first = rows.fetchone()
    if first is None:
        return HotPage([], NO_LANES, [], False, 0)
    fetched, pending_count, cold_empty, cold_version, announced, cut_at = first[:HEAD_COLUMNS]
    if not marked and (cut_at or not fetched):
        return None
    found = (hot_message(user, row[HEAD_COLUMNS:], announced) for row in chain((first,), rows) if row[-1] is not None)
    head = Head(limit, max_bytes).take(found)
    if head.lacks_normal:
        head.begin_normal()
        normal = db.execute(SQL["read"], (user, Lane.NORMAL, cutoff, head.places + 1))
        head.take(hot_message(user, row, announced) for row in normal)
    is_cut = bool(head.more) or not fits(head.messages, limit, max_bytes)
    pending = _pending(db, user) if pending_count else []
    cold_empty = bool(cold_empty and not pending_count)
    online = (is_cut or not cold_empty) and is_connected(db, user)
    if is_cut and online and not marked:
        return None
    return HotPage(head.messages, head.more, pending, cold_empty, cold_version, online, cut_at)


def mark_and_page_of(db: sqlite3.Connection, user: str, limit: int, max_bytes: int, cutoff: int, now: int) -> HotPage:
    """Mark the fetch (poke flag, cut page) and read the page in the same transaction."""
    found = page_of(db, user, limit, max_bytes, cutoff, marked=True)
    assert found is not None, "it is marked"
    fetched, before = one(db, SQL["answered"], (user,)) or (1, 0)
    is_cut = bool(found.more) or not fits(found.messages, limit, max_bytes)
    cut_at = cut_after(before, now, more=is_cut, cold_empty=found.cold_empty, poked=not fetched, online=found.online)
    if cut_at != before or not fetched:
        db.execute(SQL["fetched"], (cut_at, user))
    return structs.replace(found, cut_at=cut_at)


def note_cut(db: sqlite3.Connection, user: str, now: int) -> None:
    _, before = one(db, SQL["answered"], (user,)) or (1, 0)
    if is_connected(db, user):
        db.execute(SQL["cut"], (next_cut(before, now), user))


def _pending(db: sqlite3.Connection, user: str) -> list[Pending]:
    return [
        Pending(id_, lane_of(lane), integer(sequence)) for id_, lane, sequence in db.execute(SQL["pending"], (user,))
    ]


def acked(db: sqlite3.Connection, user: str, ids: Sequence[str]) -> dict[str, bool]:
    """By id, for those of ``ids`` that are acknowledged: whether nobody is about to delete a copy in cold."""
    return {id_: bool(unowed) for id_, unowed in db.execute(SQL["acked"], (json_list(ids), user))}


def left(db: sqlite3.Connection, user: str, ids: Sequence[str]) -> set[str]:
    """Those of ``ids`` that have left with their records: neither a record nor cold has them."""
    return {id_ for (id_,) in db.execute(SQL["left"], {"ids": json_list(ids), "user": user})}


def ack(
    db: sqlite3.Connection, user: str, ids: Sequence[str], now: int, rules: StoreRules, *, damaged: bool = False
) -> list[str]:
    """Acknowledge ``ids``; returns those of which cold may have a copy. ``damaged``: they have become dead letters."""
    hot = hot_bytes = cold = cold_bytes = pending = 0
    owed: list[str] = []
    for id_ in ids:
        record = one(db, SQL["registered"], (id_, user))
        lane, sequence, number, keyed, size = record or (0, 0, 0, 0, 0)
        state = state_of(number) if record else State.UNKNOWN
        acked = step(state, Event.ACKNOWLEDGED)
        if acked.owes_deletion:
            owed.append(id_)
        if state in GONE or state is State.UNKNOWN:
            continue
        if state in IN_COLD:
            pending -= state is State.PENDING
            cold -= 1
            cold_bytes -= size
        else:
            removed = db.execute(SQL["remove"], (user, lane, sequence)).rowcount
            hot -= removed
            hot_bytes -= removed * size
        db.execute(SQL["set_state"], (acked.after, rules.remember_until(now, keyed=bool(keyed)), id_, user))
    gone_to = gone_as(-hot - cold, damaged=damaged)
    count(db, user, hot=hot, hot_bytes=hot_bytes, cold=cold, cold_bytes=cold_bytes, pending=pending, **gone_to)
    withdraw(db, ((user, id_) for id_ in ids))
    return owed


def records_of(db: sqlite3.Connection, user: str, damaged: Sequence[Queued]) -> list[str]:
    """The ids on record for the places of ``damaged``, whose ids may be damaged too. What has no record leaves hot."""
    ids = []
    for queued in damaged:
        lane, sequence = queued.place
        record = one(db, SQL["registered"], (queued.message.id, user))
        if record is not None and record[:2] == (lane, sequence):
            ids.append(queued.message.id)
            continue
        # This reads all records, but an id itself is rarely damaged.
        found = one(db, SQL["record_at"], (user, lane, sequence))
        if found is not None:
            ids.append(found[0])
        else:
            (size,) = one(db, SQL["size_at"], (user, lane, sequence)) or (0,)
            removed = db.execute(SQL["remove"], (user, lane, sequence)).rowcount
            count(db, user, hot=-removed, hot_bytes=-size, dead=removed)
    return ids
