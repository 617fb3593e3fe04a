"""Changes to the hot queue and to the record of ids, each a function on what one step has read. Pure.

Every one looks at a message's state first, so that repeating it, or doing it late, changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from router.backends.firestore.documents import queued_message
from router.backends.firestore.names import document_id
from router.backends.firestore.recipient import Pokes
from router.backends.firestore.records import ANYHOW, record_of
from router.backends.firestore.routing import effective_state
from router.backends.firestore.transactions import Work
from router.backends.firestore.wire import Document, deletion
from router.backends.rules import MOVE_LEASE_SECONDS, StoreRules, holds_move
from router.clock import MICROSECONDS
from router.lifecycle import GONE, IN_COLD, IN_HOT, Event, State, is_misplaced, step
from router.messages import MoveRefused, Queued, Settled


def settle(work: Work, messages: Sequence[Queued], now: int) -> tuple[Settled, Pokes]:
    """``messages``, all of one user, are in cold."""
    acked: list[Queued] = []
    misplaced: list[Queued] = []
    settled = False
    work.recipient.end_leases(now)
    for queued in messages:
        record = work.records.get(queued.message.id)
        state = record.state if record else State.UNKNOWN
        after, owes_deletion = step(state, Event.SETTLED)
        if owes_deletion:
            acked.append(queued)
            continue
        if record is None:
            work.recipient.sequence = max(work.recipient.sequence, queued.sequence)
            work.keep(record_of(queued, after))
            work.recipient.enter_cold(queued.size)
        elif is_misplaced(state, record.sequence, queued):
            misplaced.append(msgspec.structs.replace(queued, sequence=record.sequence))
            continue
        elif after is state:
            continue
        else:
            record.state = after
            work.recipient.pending.pop(record.id, None)
            work.keep(record)
        work.recipient.cold_changed()
        settled = True
    return Settled(acked, misplaced), work.recipient.poke(now) if settled else []


def ack(work: Work, hot: str, ids: Sequence[str], now: int, rules: StoreRules) -> list[str]:
    """Returns the ids that may have a copy in cold."""
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


def find(work: Work, now: int) -> None:
    """Cold has copies of these acknowledged messages."""
    for record in work.records.values():
        after = step(record.state, Event.FOUND).after
        if after is not record.state:
            record.state, record.acked_at = after, now
            work.keep(record)


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
    """``owner`` takes the migration lease, and ``messages``, the oldest of hot, for moving."""
    work.recipient.move_owner = owner
    work.recipient.move_until = now + MOVE_LEASE_SECONDS * MICROSECONDS
    work.recipient.cold_changed()
    for queued in messages:
        work.recipient.double(queued.message.lane, queued.sequence)


def end_move(work: Work, hot: str, moved: Sequence[Queued]) -> list[str]:
    """Returns the ids that were acknowledged meanwhile."""
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


def forget_cold(work: Work, ids: Sequence[str], now: int, rules: StoreRules) -> None:
    """Retention removed these from cold."""
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


def abandon(work: Work, ids: Sequence[str], before: int) -> None:
    """Forget those of these places before this sequence that nobody is going to write any more."""
    recipient = work.recipient
    for id_ in [id_ for id_ in recipient.abandoned(before) if id_ in ids]:
        record = work.records.get(id_)
        del recipient.pending[id_]
        recipient.leave_cold(record.size if record else 0)
        if record is not None:
            record.state = step(record.state, Event.ABANDONED).after
            work.keep(record)


def forget_orphans(work: Work, ids: Sequence[str], now: int) -> None:
    """No copy of these is left in cold; believed unless a migrator can be about to write one."""
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
