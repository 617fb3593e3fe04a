"""Messages leave the queue for good. Where this file holds all that a message passes, its rows, record and push command
go in one transaction, and the record stays, as a tombstone, only if the id may come again: under its Idempotency-Key,
from the ingress, or from a migrator that works by steps; or if ``embedded.remember_acknowledged`` asks for it.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from router.backends.embedded.push import withdraw
from router.backends.embedded.queries import load
from router.backends.embedded.recipients import HOT, count, count_each
from router.backends.embedded.rows import one
from router.backends.embedded.state import EmbeddedState
from router.backends.routing_rules import next_cut
from router.lifecycle import IN_COLD, IN_HOT, Event, State, state_of, step
from router.messages import Queued

SQL = load("departures")


class Departures:
    """Ends records of one user's messages within a transaction."""

    def __init__(self, db: sqlite3.Connection, user: str, now: int, state: EmbeddedState) -> None:
        self._db = db
        self._user = user
        self._now = now
        self._rules = state.rules
        self._stays = state.remembers or not state.direct or bool(one(db, SQL["under_way"], (user,))[0])

    def end(self, id_: str, after: State, *, keyed: bool) -> None:
        """The message ``id_`` has left the queue; ``after``: its state, if its record stays."""
        if keyed or self._stays:
            self._db.execute(HOT["set_state"], (after, self.until(keyed=keyed), id_, self._user))
        else:
            self._db.execute(HOT["forget"], (id_, self._user))

    def until(self, *, keyed: bool) -> int:
        """When (µs since 1970) the tombstone of a message that leaves now ends."""
        return self._rules.remember_until(self._now, keyed=keyed)


def remove(
    db: sqlite3.Connection, user: str, ids: Iterable[str], now: int, state: EmbeddedState, *, damaged: bool = False
) -> None:
    """Acknowledge ``ids``: nothing of them is left in either tier, nor in the outbox. ``damaged``: instead they have
    become dead letters."""
    departures = Departures(db, user, now, state)
    hot = hot_bytes = cold = cold_bytes = pending = 0
    gone: list[tuple[str, str]] = []
    for id_ in ids:
        gone.append((user, id_))
        record = one(db, HOT["registered"], (id_, user))
        if record is None:
            _remove_unknown(db, user, id_, departures)
            continue
        lane, sequence, number, keyed, size = record
        before = state_of(number)
        if before is not State.HOT:
            db.execute(SQL["remove_cold"], (id_, user))
        if before in IN_COLD:
            pending -= before is State.PENDING
            cold -= 1
            cold_bytes -= size
        elif before in IN_HOT or before is State.DAMAGED:
            removed = db.execute(HOT["remove"], (user, lane, sequence)).rowcount
            hot -= removed
            hot_bytes -= removed * size
        after = step(before, Event.REMOVED).after
        if after is not before:
            departures.end(id_, after, keyed=bool(keyed))
    withdraw(db, gone)
    gone_to = gone_as(-hot - cold, damaged=damaged)
    count(db, user, hot=hot, hot_bytes=hot_bytes, cold=cold, cold_bytes=cold_bytes, pending=pending, **gone_to)


def gone_as(messages: int, *, damaged: bool) -> dict[str, int]:
    """What ``count`` is told of messages that have left the queue."""
    return {"dead" if damaged else "acknowledged": messages}


def _remove_unknown(db: sqlite3.Connection, user: str, id_: str, departures: Departures) -> None:
    """Remove what a pipeline has written to cold without the online store, and will tell the store of."""
    for lane, sequence, keyed in db.execute(SQL["remove_cold_unknown"], (id_, user)).fetchall():
        db.execute(HOT["register"], (id_, user, lane, sequence, State.COLD, keyed, 0))
        after = step(State.COLD, Event.REMOVED).after
        db.execute(HOT["set_state"], (after, departures.until(keyed=bool(keyed)), id_, user))


def note_acknowledgement(db: sqlite3.Connection, user: str, now: int) -> None:
    """Begin the user's time to fetch the next page again, if the last one was cut short."""
    _, cut_at = one(db, HOT["answered"], (user,)) or (1, 0)
    if cut_at:
        db.execute(HOT["cut"], (next_cut(cut_at, now), user))


def drop(
    db: sqlite3.Connection, dropped: Sequence[tuple[str, int, int, str, int, int]], now: int, state: EmbeddedState
) -> None:
    """Let ephemeral messages go from hot: (user, lane, sequence, id, keyed, size) of each."""
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    departures = {user: Departures(db, user, now, state) for user in {user for user, *_ in dropped}}
    for user, lane, sequence, id_, keyed, size in dropped:
        db.execute(HOT["remove"], (user, lane, sequence))
        departures[user].end(id_, step(State.HOT, Event.DROPPED).after, keyed=bool(keyed))
        changes[user].subtract({"hot": 1, "hot_bytes": size})
        changes[user]["dropped"] += 1
    count_each(db, changes)


def expire(db: sqlite3.Connection, expired: Sequence[Queued], now: int, state: EmbeddedState) -> None:
    """End the records of ``expired``, which retention is about to delete from cold; where this file holds all, delete
    them now."""
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    names = [queued.message.name for queued in expired]
    departures = {user: Departures(db, user, now, state) for user in {user for user, _ in names}}
    for queued in expired:
        user, id_ = queued.message.name
        record = one(db, HOT["registered"], (id_, user))
        if record is None:
            continue
        before = state_of(record[2])
        after = step(before, Event.EXPIRED).after
        if after is not before:
            departures[user].end(id_, after, keyed=queued.message.keyed)
            changes[user].subtract({"cold": 1, "cold_bytes": record[-1], "pending": before is State.PENDING})
            changes[user]["expired"] += 1
    count_each(db, changes)
    withdraw(db, names)
    if state.direct:
        db.executemany(SQL["remove_cold"], [(id_, user) for user, id_ in names])
