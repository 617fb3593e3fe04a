"""The life of a record: the states of the id of a routed message, and every transition between them, as one table.

The online store keeps a record of each id that it has routed (docs/specification.md#the-atomic-step). All backends
follow this table. The embedded one and Firestore apply it, SQL statements take its numbers from here, and the contract
tests run every transition on every backend, so that the Lua scripts of Redis are held to it too. ``docs/lifecycle.md``
is generated from it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from router.messages import Delivery, Outcome, Queued


class State(IntEnum):
    """Where a routed message is. The stores keep the numbers, but for the negative ones."""

    HOT = 0
    """In the hot queue, and nowhere else."""
    PENDING = 1
    """On its way to the cold queue: the write is not confirmed."""
    COLD = 2
    """In the cold queue."""
    ACKED = 3
    """In no queue: a tombstone, so that a redelivery is known for what it is."""
    DOUBLE = 4
    """In the hot queue, while the cold queue has a copy or may get one, by a migrator or by write-through."""
    ACKED_OWED = 5
    """Acknowledged, while the cold queue has a copy or may get one, which must be deleted: an orphan."""
    UNKNOWN = -1
    """There is no record of this id."""
    DAMAGED = -2
    """The record holds none of these numbers: the message may be anywhere."""


class Event(StrEnum):
    """What happens to a message."""

    ROUTED_HOT = "routed to hot"
    """Its recipient is online."""
    ROUTED_DOUBLE = "routed to hot, with a copy"
    """The same, and the cold queue gets a copy (write-through), or may have one from an earlier delivery."""
    ROUTED_COLD = "routed to cold"
    """Its recipient is offline."""
    REDELIVERED = "redelivered"
    """The ingress delivers it again, not ephemeral: a pipeline that could not reach the store may have written it to
    the cold queue."""
    SETTLED = "settled"
    """Its copy in the cold queue is committed."""
    ACKNOWLEDGED = "acknowledged"
    """Its recipient has saved it."""
    TAKEN = "taken for a move"
    """A migrator is about to write it to the cold queue."""
    MOVED = "moved"
    """The migrator has committed it there."""
    DROPPED = "dropped"
    """It is ephemeral, and its time is over or its recipient is gone."""
    FOUND = "found in cold"
    """A reader finds a copy of it in the cold queue, after it was acknowledged."""
    EXPIRED = "expired"
    """Retention is about to delete it from the cold queue."""
    ABANDONED = "abandoned"
    """Its place is older than ``cold.retention_days``, by a day: nobody is going to write it to the cold queue any
    more."""
    CLEARED = "copies deleted"
    """No copy of an acknowledged message is left in the cold queue, and no migrator can be about to write one."""
    FORGOTTEN = "forgotten"
    """The time of its tombstone is over."""


class Step(NamedTuple):
    """What an event makes of a record."""

    after: State
    owes_deletion: bool = False
    """Whoever brings the event deletes the copy that the cold queue may have, and then clears the record."""


IN_HOT = frozenset({State.HOT, State.DOUBLE})
"""The hot queue has the message."""
IN_COLD = frozenset({State.PENDING, State.COLD})
"""The message counts as one of the cold queue only."""
GONE = frozenset({State.ACKED, State.ACKED_OWED})
"""The message is in no queue any more."""
UNDER_WAY = frozenset({State.PENDING, State.ACKED_OWED})
"""Somebody has still to confirm a write to the cold queue, or a deletion there."""
STORED = frozenset(state for state in State if state >= 0)

TRANSITIONS: dict[State, dict[Event, Step]] = {
    State.UNKNOWN: {
        Event.ROUTED_HOT: Step(State.HOT),
        Event.ROUTED_DOUBLE: Step(State.DOUBLE),
        Event.ROUTED_COLD: Step(State.PENDING),
        # A pipeline wrote it to cold while the store could not be reached.
        Event.SETTLED: Step(State.COLD),
        # What is unknown may have come to cold in the same way, even where cold is known to be empty.
        Event.ACKNOWLEDGED: Step(State.UNKNOWN, owes_deletion=True),
    },
    State.HOT: {
        Event.REDELIVERED: Step(State.DOUBLE),
        Event.SETTLED: Step(State.DOUBLE),
        Event.ACKNOWLEDGED: Step(State.ACKED),
        Event.TAKEN: Step(State.DOUBLE),
        Event.MOVED: Step(State.COLD),
        Event.DROPPED: Step(State.ACKED),
    },
    State.PENDING: {
        Event.SETTLED: Step(State.COLD),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        # Whoever wrote it has died before it could say so, and the ingress delivers it no more.
        Event.EXPIRED: Step(State.ACKED),
        # Not a tombstone: nobody has got it, and whoever publishes its dead letter again means it.
        Event.ABANDONED: Step(State.UNKNOWN),
    },
    State.COLD: {
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.EXPIRED: Step(State.ACKED),
    },
    State.DOUBLE: {
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.MOVED: Step(State.COLD),
        # Ephemeral mail has no copy in cold, whatever its record says.
        Event.DROPPED: Step(State.ACKED),
    },
    State.ACKED: {
        # The copy that the earlier delivery may have left is nobody's work now: it is found as an orphan.
        Event.REDELIVERED: Step(State.ACKED_OWED),
        # Whoever was to delete it has died, and nobody else owes it.
        Event.FOUND: Step(State.ACKED_OWED),
        Event.SETTLED: Step(State.ACKED, owes_deletion=True),
        Event.MOVED: Step(State.ACKED, owes_deletion=True),
        Event.FORGOTTEN: Step(State.UNKNOWN),
    },
    State.ACKED_OWED: {
        Event.SETTLED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.MOVED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.CLEARED: Step(State.ACKED),
    },
    State.DAMAGED: {
        Event.SETTLED: Step(State.DOUBLE),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.DROPPED: Step(State.ACKED),
    },
}
"""An event that a state does not list changes nothing: one that is repeated, or comes late, does no harm."""

REDELIVERY_OWES = {
    State.PENDING: Outcome.COLD,
    State.COLD: Outcome.ANNOUNCE,
    State.DOUBLE: Outcome.COPY,
    State.DAMAGED: Outcome.COLD,
}
"""What a redelivery of a message that is known still owes, the copy with write-through only. In any other state it is a
``duplicate``, which owes nothing."""

_UNCHANGED = {state: Step(state) for state in State}


def step(state: State, event: Event) -> Step:
    """What ``event`` makes of a record in ``state``."""
    return TRANSITIONS[state].get(event) or _UNCHANGED[state]


def changes(event: Event) -> dict[State, State]:
    """The states of records that ``event`` changes, and what into."""
    steps = {state: step(state, event).after for state in STORED}
    return {state: after for state, after in steps.items() if after is not state}


def state_of(number: int) -> State:
    """``number`` as it was stored."""
    return State(number) if number in STORED else State.DAMAGED


def entry(delivery: Delivery, outcome: Outcome, *, write_through: bool) -> Event:
    """The event that is a new id which was routed as ``outcome`` says, hot or cold."""
    if outcome is Outcome.COLD:
        return Event.ROUTED_COLD
    assert delivery.message is not None, "only readable deliveries are routed"
    copied = (write_through or delivery.delivered_before) and not delivery.message.ephemeral
    return Event.ROUTED_DOUBLE if copied else Event.ROUTED_HOT


def redelivery(state: State, delivery: Delivery) -> State:
    """The state of a known message after ``delivery``, which may be the first one of this store."""
    message = delivery.message
    if not delivery.delivered_before or message is None or message.ephemeral:
        return state
    return step(state, Event.REDELIVERED).after


def redelivery_owes(state: State, *, write_through: bool) -> Outcome:
    """What a redelivery of a message in ``state`` still owes."""
    owed = REDELIVERY_OWES.get(state, Outcome.DUPLICATE)
    return owed if owed is not Outcome.COPY or write_through else Outcome.DUPLICATE


def is_misplaced(state: State, sequence: int, queued: Queued) -> bool:
    """Whether ``queued`` was put into the cold queue behind its place, which is ``sequence``, without the store: it is
    not settled then.

    A pipeline that was given the place has still to write it; what was routed behind it may be in the cold queue
    already.
    """
    return state is State.PENDING and queued.sequence > sequence
