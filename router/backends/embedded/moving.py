"""Changes to the hot queue and to the record of ids, each a function on one transaction.

Every one looks at a message's state first, so that repeating it, or doing it late, changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from router.backends.embedded import reading
from router.backends.embedded.presence import nodes_of
from router.backends.embedded.push import withdraw
from router.backends.embedded.routing import HOT as SQL
from router.backends.embedded.routing import Pokes, recipients_of, save
from router.backends.embedded.rows import ANY_LANE, hot_message, json_list, one
from router.backends.rules import MOVE_LEASE_SECONDS, StoreRules, holds_move, next_cut
from router.clock import MICROSECONDS
from router.lifecycle import GONE, IN_COLD, Event, State, is_misplaced, state_of, step
from router.messages import Lane, Move, MoveRefused, Queued, Settled
from router.pages import Page


def _count(
    db: sqlite3.Connection,
    user: str,
    *,
    hot: int = 0,
    hot_bytes: int = 0,
    cold: int = 0,
    cold_bytes: int = 0,
    pending: int = 0,
    cold_changed: int = 0,
) -> None:
    if hot or cold or pending or cold_changed:
        values: dict[str, object] = {"user": user, "hot": hot, "hot_bytes": hot_bytes, "cold": cold}
        values |= {"cold_bytes": cold_bytes, "pending": pending, "cold_changed": cold_changed}
        db.execute(SQL["count"], values)


def _count_each(db: sqlite3.Connection, changes: Mapping[str, Counter[str]]) -> None:
    """What of ``_count`` changes for each user."""
    for user, own in changes.items():
        _count(db, user, **own)


def settle(db: sqlite3.Connection, messages: Sequence[Queued], now: int, rules: StoreRules) -> tuple[Settled, Pokes]:
    acked: list[Queued] = []
    misplaced: list[Queued] = []
    arrived: dict[tuple[str, str], tuple[Queued, State, State]] = {}
    ids = json_list(queued.message.id for queued in messages)
    rows = db.execute(SQL["registered_some"], (ids,))
    records = {(user, id_): (sequence, state_of(number)) for id_, user, sequence, number in rows}
    for queued in messages:
        name = queued.message.name
        sequence, state = records.get(name, (0, State.UNKNOWN))
        settled = step(state, Event.SETTLED)
        if settled.owes_deletion:
            acked.append(queued)
        elif is_misplaced(state, sequence, queued):
            misplaced.append(msgspec.structs.replace(queued, sequence=sequence))
        elif settled.after is not state:
            arrived.setdefault(name, (queued, state, settled.after))
    return Settled(acked, misplaced), _arrive(db, arrived.values(), now, rules)


def _arrive(
    db: sqlite3.Connection, arrived: Collection[tuple[Queued, State, State]], now: int, rules: StoreRules
) -> Pokes:
    """Cold has these messages now, each with the state that it was in, and the one that it is in by that."""
    recipients = recipients_of(db, (queued.message.recipient for queued, *_ in arrived), now, rules)
    changed: list[tuple[object, ...]] = []
    for queued, state, after in arrived:
        message, recipient = queued.message, recipients[queued.message.recipient]
        if state is State.UNKNOWN:
            values = (message.id, message.recipient, message.lane, queued.sequence, after, message.keyed)
            is_new = db.execute(SQL["register"], (*values, queued.size)).rowcount
            recipient.cold += is_new
            recipient.cold_bytes += is_new * queued.size
            recipient.sequence = max(recipient.sequence, queued.sequence)
        else:
            changed.append((after, None, message.id, message.recipient))
            recipient.pending -= state is State.PENDING
        recipient.cold_version += 1
        recipient.cold_empty = 0
    db.executemany(SQL["set_state"], changed)
    # A poke changes its recipient too.
    pokes = [poke for recipient in recipients.values() for poke in recipient.poke(now)]
    save(db, recipients.values())
    return pokes


def ack(db: sqlite3.Connection, user: str, ids: Sequence[str], now: int, rules: StoreRules) -> list[str]:
    """Returns the ids that may have a copy in cold."""
    _, cut_at = one(db, SQL["answered"], (user,)) or (1, 0)
    if cut_at:
        db.execute(SQL["cut"], (next_cut(cut_at, now), user))
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
    _count(db, user, hot=hot, hot_bytes=hot_bytes, cold=cold, cold_bytes=cold_bytes, pending=pending)
    withdraw(db, ((user, id_) for id_ in ids))
    return owed


def discard(db: sqlite3.Connection, user: str, damaged: Sequence[Queued], now: int, rules: StoreRules) -> list[str]:
    """Returns the ids that may have a copy in cold. A row's place says which it is; its id may be damaged too."""
    ids = []
    for queued in damaged:
        lane, sequence = queued.place
        record = one(db, SQL["registered"], (queued.message.id, user))
        if record is not None and record[:2] == (lane, sequence):
            ids.append(queued.message.id)
            continue
        # All records are looked through; that is for the one time in years when an id itself is damaged.
        found = one(db, SQL["record_at"], (user, lane, sequence))
        if found is not None:
            ids.append(found[0])
        else:
            (size,) = one(db, SQL["size_at"], (user, lane, sequence)) or (0,)
            _count(db, user, hot=-db.execute(SQL["remove"], (user, lane, sequence)).rowcount, hot_bytes=-size)
    return ack(db, user, ids, now, rules)


def begin_move(
    db: sqlite3.Connection,
    user: str,
    owner: str,
    limit: int,
    max_bytes: int,
    now: int,
    leaving_at: int,
    rules: StoreRules,
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
    dropped = _drop_ephemeral(db, user, leaving_at, rules)
    rows = db.execute(SQL["read"], (user, ANY_LANE, now, limit + 1))
    page = Page(limit, max_bytes).take(hot_message(user, row, announced) for row in rows)
    if page.messages:
        db.execute(SQL["take_move_lease"], (owner, now + MOVE_LEASE_SECONDS * MICROSECONDS, user))
        db.execute(SQL["mark_moving"], (json_list([queued.message.id for queued in page.messages]), user))
    return Move(page.messages, dropped, bool(page.more))


def _drop_ephemeral(db: sqlite3.Connection, user: str, now: int, rules: StoreRules) -> int:
    found = db.execute(SQL["ephemeral"], (user,)).fetchall()
    for id_, lane, sequence, keyed, _ in found:
        _drop(db, user, lane, sequence, id_, rules.remember_until(now, keyed=bool(keyed)))
    _count(db, user, hot=-len(found), hot_bytes=-sum(size for *_, size in found))
    return len(found)


def _drop(db: sqlite3.Connection, user: str, lane: int, sequence: int, id_: str, until: int) -> None:
    db.execute(SQL["remove"], (user, lane, sequence))
    db.execute(SQL["drop"], (until, id_, user))


def end_move(db: sqlite3.Connection, user: str, moved: Sequence[Queued]) -> list[str]:
    """Returns the ids that were acknowledged meanwhile."""
    # A statement for the batch and not several for each message: a migration is measured by its messages per second.
    # What was acknowledged meanwhile, or was ended by another migrator, has left the hot queue and changes no state.
    ids = [queued.message.id for queued in moved]
    acked = reading.acked(db, user, ids)
    left = sum(
        db.execute(SQL["remove_some"], (user, lane.value, json_list(sequences))).rowcount
        for lane in Lane
        if (sequences := [queued.sequence for queued in moved if queued.message.lane is lane])
    )
    arrived = [size for (size,) in db.execute(SQL["end_moving"], (json_list(ids), user))]
    size = sum(arrived)
    _count(db, user, hot=-left, hot_bytes=-size, cold=len(arrived), cold_bytes=size, cold_changed=True)
    return [id_ for id_ in ids if id_ in acked]


def forget_cold(db: sqlite3.Connection, expired: Sequence[Queued], now: int, rules: StoreRules) -> None:
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for queued in expired:
        name = queued.message.id, queued.message.recipient
        record = one(db, SQL["registered"], name)
        if record is None:
            continue
        state = state_of(record[2])
        after = step(state, Event.EXPIRED).after
        if after is not state:
            db.execute(SQL["set_state"], (after, rules.remember_until(now, keyed=queued.message.keyed), *name))
            changes[queued.message.recipient].subtract(
                {"cold": 1, "cold_bytes": record[-1], "pending": state is State.PENDING}
            )
    _count_each(db, changes)
    withdraw(db, ((queued.message.recipient, queued.message.id) for queued in expired))


def abandon(db: sqlite3.Connection, before: int, limit: int) -> None:
    """Forget places before this sequence, which nobody is going to write any more."""
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for user, id_, size in db.execute(SQL["abandoned"], (before, limit)).fetchall():
        db.execute(SQL["forget"], (id_, user))
        changes[user].subtract({"cold": 1, "cold_bytes": size, "pending": 1})
    _count_each(db, changes)


def drop_stale_ephemeral(db: sqlite3.Connection, cutoff: int, limit: int, now: int, rules: StoreRules) -> int:
    found = db.execute(SQL["stale_ephemeral"], (cutoff, limit)).fetchall()
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for user, lane, sequence, id_, keyed, size in found:
        _drop(db, user, lane, sequence, id_, rules.remember_until(now, keyed=bool(keyed)))
        changes[user].subtract({"hot": 1, "hot_bytes": size})
    _count_each(db, changes)
    return len(found)
