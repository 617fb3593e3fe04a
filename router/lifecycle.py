"""The life of a record: the states of a routed message, and every transition between them, as one table.

The online store keeps a record of each id that it has routed (docs/specification.md#the-atomic-step). The embedded
backend and Firestore apply this table, and the SQL statements take the numbers of the states from it. The Lua scripts
of Redis repeat it. The contract tests run every transition on every backend, so the scripts cannot deviate.
``docs/lifecycle.md`` is generated from it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from router.messages import Delivery, Outcome, Queued


class State(IntEnum):
    """Where a routed message is. Stores keep these numbers, except for the negative ones."""

    HOT = 0
    """In the hot queue, and nowhere else."""
    PENDING = 1
    """On its way to the cold queue; the write is not confirmed."""
    COLD = 2
    """In the cold queue."""
    ACKED = 3
    """In no queue. The record is a tombstone, by which the store recognizes a redelivery."""
    DOUBLE = 4
    """In the hot queue, while the cold queue has a copy or may get one, from a migrator or by write-through."""
    ACKED_OWED = 5
    """Acknowledged, while the cold queue has a copy or may get one: an orphan, which must be deleted."""
    UNKNOWN = -1
    """There is no record of this id."""
    DAMAGED = -2
    """The record holds none of these numbers; the message may be anywhere."""


class Event(StrEnum):
    """What happens to a message."""

    ROUTED_HOT = "routed to hot"
    """Its recipient is online."""
    ROUTED_DOUBLE = "routed to hot, with a copy"
    """Its recipient is online, and the cold queue gets a copy (write-through) or may have one from an earlier
    delivery."""
    ROUTED_COLD = "routed to cold"
    """Its recipient is offline."""
    STORED = "stored in cold"
    """Its recipient is offline, and the step that routes it writes it to the cold queue: all is one file."""
    REDELIVERED = "redelivered"
    """The ingress delivers it again, and it is not ephemeral. A pipeline that could not reach the store may have
    written it to the cold queue."""
    SETTLED = "settled"
    """The write of its copy to the cold queue is confirmed."""
    ACKNOWLEDGED = "acknowledged"
    """Its recipient has saved it."""
    REMOVED = "acknowledged and removed"
    """Its recipient has saved it, and the step that records this deletes it from both queues: they are one file."""
    TAKEN = "taken for a move"
    """A migrator is about to write it to the cold queue."""
    MOVED = "moved"
    """The migrator has written it there."""
    DROPPED = "dropped"
    """It is ephemeral, and its time is over or its recipient is gone."""
    FOUND = "found in cold"
    """A fetch finds a copy of it in the cold queue after it was acknowledged."""
    EXPIRED = "expired"
    """Retention is about to delete it from the cold queue."""
    ABANDONED = "abandoned"
    """Its sequence is older than ``cold.retention_days`` and a day more, so nobody is going to write it to the cold
    queue."""
    CLEARED = "copies deleted"
    """The cold queue has no copy of an acknowledged message, and no migrator can be about to write one."""
    FORGOTTEN = "forgotten"
    """The time of its tombstone is over."""


class Step(NamedTuple):
    """What an event does to a record."""

    after: State
    owes_deletion: bool = False
    """The caller that reports the event deletes the copy that the cold queue may have, and then clears the record
    (``Event.CLEARED``)."""


IN_HOT = frozenset({State.HOT, State.DOUBLE})
"""The hot queue has the message."""
IN_COLD = frozenset({State.PENDING, State.COLD})
"""The message counts as cold mail only."""
GONE = frozenset({State.ACKED, State.ACKED_OWED})
"""No queue has the message any more."""
UNDER_WAY = frozenset({State.PENDING, State.ACKED_OWED})
"""A write to the cold queue, or a deletion there, is not confirmed yet."""
STORED = frozenset(state for state in State if state >= 0)

TRANSITIONS: dict[State, dict[Event, Step]] = {
    State.UNKNOWN: {
        Event.ROUTED_HOT: Step(State.HOT),
        Event.ROUTED_DOUBLE: Step(State.DOUBLE),
        Event.ROUTED_COLD: Step(State.PENDING),
        Event.STORED: Step(State.COLD),
        # A pipeline that could not reach the store wrote the message to cold.
        Event.SETTLED: Step(State.COLD),
        # A pipeline may have done so, even if the store believes that cold is empty.
        Event.ACKNOWLEDGED: Step(State.UNKNOWN, owes_deletion=True),
    },
    State.HOT: {
        Event.REDELIVERED: Step(State.DOUBLE),
        Event.SETTLED: Step(State.DOUBLE),
        Event.ACKNOWLEDGED: Step(State.ACKED),
        Event.REMOVED: Step(State.ACKED),
        Event.TAKEN: Step(State.DOUBLE),
        Event.MOVED: Step(State.COLD),
        Event.DROPPED: Step(State.ACKED),
    },
    State.PENDING: {
        Event.SETTLED: Step(State.COLD),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        # Whoever is about to write it settles it then, and deletes it.
        Event.REMOVED: Step(State.ACKED),
        # Its writer died before it could confirm the write, and the ingress does not redeliver it.
        Event.EXPIRED: Step(State.ACKED),
        # No tombstone: the recipient never got the message, and an operator may replay its dead letter.
        Event.ABANDONED: Step(State.UNKNOWN),
    },
    State.COLD: {
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.REMOVED: Step(State.ACKED),
        Event.EXPIRED: Step(State.ACKED),
    },
    State.DOUBLE: {
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.REMOVED: Step(State.ACKED),
        Event.MOVED: Step(State.COLD),
        # Ephemeral mail never has a copy in cold, whatever its record says.
        Event.DROPPED: Step(State.ACKED),
    },
    State.ACKED: {
        # The earlier delivery may have left a copy that nobody is about to delete: a sweeper finds the orphan.
        Event.REDELIVERED: Step(State.ACKED_OWED),
        # The process that was to delete the copy has died.
        Event.FOUND: Step(State.ACKED_OWED),
        Event.SETTLED: Step(State.ACKED, owes_deletion=True),
        Event.MOVED: Step(State.ACKED, owes_deletion=True),
        Event.FORGOTTEN: Step(State.UNKNOWN),
    },
    State.ACKED_OWED: {
        Event.SETTLED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.REMOVED: Step(State.ACKED),
        Event.MOVED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.CLEARED: Step(State.ACKED),
    },
    State.DAMAGED: {
        Event.SETTLED: Step(State.DOUBLE),
        Event.ACKNOWLEDGED: Step(State.ACKED_OWED, owes_deletion=True),
        Event.REMOVED: Step(State.ACKED),
        Event.DROPPED: Step(State.ACKED),
    },
}
"""An event that a state does not list changes nothing, so that a repeated or late event does no harm."""

REDELIVERY_OWES = {
    State.PENDING: Outcome.COLD,
    State.COLD: Outcome.ANNOUNCE,
    State.DOUBLE: Outcome.COPY,
    State.DAMAGED: Outcome.COLD,
}
"""What the pipeline still has to do for a redelivery of a known message, by the message's state; ``COPY`` with
write-through only. In any other state the redelivery is a ``DUPLICATE``, with nothing to do."""

_UNCHANGED = {state: Step(state) for state in State}


def step(state: State, event: Event) -> Step:
    """What ``event`` does to a record in ``state``."""
    return TRANSITIONS[state].get(event) or _UNCHANGED[state]


def changes(event: Event) -> dict[State, State]:
    """The states that ``event`` changes, each with the state after it."""
    steps = {state: step(state, event).after for state in STORED}
    return {state: after for state, after in steps.items() if after is not state}


def state_of(number: int) -> State:
    """The state that was stored as ``number``."""
    return State(number) if number in STORED else State.DAMAGED


def entry(delivery: Delivery, outcome: Outcome, *, write_through: bool, stores: bool = False) -> Event:
    """The event for a new id that was routed to hot or cold, as ``outcome`` says; ``stores``: the step that routes it
    writes it to the cold queue, too."""
    if outcome is Outcome.COLD:
        return Event.STORED if stores else Event.ROUTED_COLD
    assert delivery.message is not None, "only readable deliveries are routed"
    copied = (write_through or delivery.delivered_before) and not delivery.message.ephemeral
    return Event.ROUTED_DOUBLE if copied else Event.ROUTED_HOT


def redelivery(state: State, delivery: Delivery) -> State:
    """The state of a known message after ``delivery``, which may also be a first delivery."""
    message = delivery.message
    if not delivery.delivered_before or message is None or message.ephemeral:
        return state
    return step(state, Event.REDELIVERED).after


def redelivery_owes(state: State, *, write_through: bool) -> Outcome:
    """What the pipeline still has to do for a redelivery of a message in ``state``."""
    owed = REDELIVERY_OWES.get(state, Outcome.DUPLICATE)
    return owed if owed is not Outcome.COPY or write_through else Outcome.DUPLICATE


def is_misplaced(state: State, sequence: int, queued: Queued) -> bool:
    """Whether ``queued`` is in the cold queue behind ``sequence``, the one on record: then it must not be settled.

    This pipeline wrote it without the store. Another pipeline was given ``sequence`` and has not written it yet, while
    later messages may be in the cold queue already.
    """
    return state is State.PENDING and queued.sequence > sequence
