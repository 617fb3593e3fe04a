"""The atomic routing step: presence, sequence, dedupe, enqueue and the decision to poke, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from enum import IntEnum

from router.backends.embedded.queries import load
from router.backends.embedded.rules import StoreRules
from router.messages import Delivery, Message, Outcome, Routed

HOT = load("hot")
PRESENCE = load("presence")

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""


class State(IntEnum):
    """Where a routed message is; the numbers are stored."""

    HOT = 0
    PENDING = 1
    """On its way to cold; the write is not confirmed."""
    COLD = 2
    ACKED = 3
    """In no queue any more: a tombstone."""
    MOVING = 4
    """In hot, and a migrator is copying it to cold."""
    ACKED_OWED = 5
    """Acknowledged, while cold has or may get a copy that must be deleted."""


_KNOWN = {
    State.HOT: Outcome.DUPLICATE,
    State.PENDING: Outcome.COLD,
    State.COLD: Outcome.ANNOUNCE,
    State.ACKED: Outcome.DUPLICATE,
    State.MOVING: Outcome.DUPLICATE,
    State.ACKED_OWED: Outcome.DUPLICATE,
}


class Recipient:
    """One user's state within a transaction."""

    __slots__ = (
        "cold", "cold_empty", "cold_version", "fetched", "hot", "nodes", "pending", "poked_at", "sequence", "user",
    )  # fmt: skip

    def __init__(self, connection: sqlite3.Connection, user: str, now: int, rules: StoreRules) -> None:
        self.user = user
        row = connection.execute(HOT["recipient"], (user,)).fetchone()
        if row is None:
            row = (0, 0, 0, 0, 0, int(rules.fresh_cold_empty), 0, 1)
        (
            self.sequence, self.hot, self.cold, self.pending,
            self.cold_version, self.cold_empty, self.poked_at, self.fetched,
        ) = row  # fmt: skip
        self.nodes = [node for (node,) in connection.execute(PRESENCE["nodes"], (user, now))]

    def next_sequence(self, now: int) -> int:
        """Greater than any before and than the clock, so that it rises even after the store was lost."""
        sequence: int = max(self.sequence + 1, now)
        self.sequence = sequence
        return sequence

    def poke(self, now: int) -> Pokes:
        """The pokes that a new message owes: none while nobody has fetched since the last ones."""
        if not self.fetched or not self.nodes:
            return []
        self.fetched, self.poked_at = 0, now
        return [(node, self.user) for node in self.nodes]

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            HOT["save_recipient"],
            (
                self.user,
                self.sequence,
                self.hot,
                self.cold,
                self.pending,
                self.cold_version,
                self.cold_empty,
                self.poked_at,
                self.fetched,
            ),
        )


def decide(message: Message, recipient: Recipient, now: int, rules: StoreRules) -> Outcome:
    """Where a message with a new id goes."""
    if message.ephemeral:
        if message.accepted_at <= rules.ephemeral_cutoff(now):
            return Outcome.DROPPED_EXPIRED
        if not recipient.nodes:
            return Outcome.DROPPED_OFFLINE
    if recipient.hot + recipient.cold >= rules.queue_messages:
        return Outcome.QUEUE_FULL
    return Outcome.HOT if recipient.nodes else Outcome.COLD


def route(
    connection: sqlite3.Connection, deliveries: Sequence[Delivery], now: int, rules: StoreRules
) -> tuple[list[Routed], Pokes]:
    """Route ``deliveries`` in their order; the pokes are sent once the transaction is committed."""
    recipients: dict[str, Recipient] = {}
    hot: list[tuple[object, ...]] = []
    pokes: Pokes = []
    results = []
    for delivery in deliveries:
        message = delivery.message
        assert message is not None, "only readable deliveries are routed"
        recipient = recipients.get(message.recipient)
        if recipient is None:
            recipient = recipients[message.recipient] = Recipient(connection, message.recipient, now, rules)
        outcome = decide(message, recipient, now, rules)
        if outcome is Outcome.HOT or outcome is Outcome.COLD:
            result = _enter(connection, message, recipient, outcome, now)
        else:
            result = _known(connection, message, now) or Routed(outcome)
        if result.outcome is Outcome.HOT:
            hot.append(_row(delivery, message, result))
            pokes += recipient.poke(now)
        results.append(result)
    connection.executemany(HOT["enqueue"], hot)
    for recipient in recipients.values():
        recipient.save(connection)
    return results, pokes


def _enter(
    connection: sqlite3.Connection, message: Message, recipient: Recipient, outcome: Outcome, now: int
) -> Routed:
    before = recipient.sequence
    sequence = recipient.next_sequence(now)
    state = State.HOT if outcome is Outcome.HOT else State.PENDING
    record = (message.id, message.recipient, message.lane, sequence, state, message.keyed)
    if connection.execute(HOT["register"], record).rowcount == 0:
        recipient.sequence = before
        known = _known(connection, message, now)
        assert known is not None, "an id that cannot be registered is known"
        return known
    if outcome is Outcome.HOT:
        recipient.hot += 1
    else:
        recipient.cold += 1
        recipient.pending += 1
        recipient.cold_version += 1
        recipient.cold_empty = 0
    return Routed(outcome, sequence, now)


def _known(connection: sqlite3.Connection, message: Message, now: int) -> Routed | None:
    row = connection.execute(HOT["registered"], (message.id,)).fetchone()
    if row is None:
        return None
    user, _, sequence, state, _ = row
    if user != message.recipient:
        return Routed(Outcome.ID_CONFLICT)
    return Routed(_KNOWN[State(state)], sequence, now)


def _row(delivery: Delivery, message: Message, result: Routed) -> tuple[object, ...]:
    return (
        message.recipient, message.lane, result.sequence, message.id, result.queued_at, message.accepted_at,
        message.ephemeral, message.keyed, delivery.attempt, message.envelope,
    )  # fmt: skip
