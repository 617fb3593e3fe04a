"""The atomic routing step: presence, sequence, dedupe, enqueue and the decision to poke, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.backends.embedded.queries import load
from router.backends.rules import (
    State,
    StoreRules,
    decide,
    entered_state,
    known_outcome,
    next_sequence,
    redelivered_state,
)
from router.messages import Delivery, Message, Outcome, Routed

HOT = load("hot")
PRESENCE = load("presence")

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""


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
        """One that is given to nobody else."""
        sequence = next_sequence(self.sequence, now)
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
        queued = recipient.hot + recipient.cold
        outcome = decide(message, online=bool(recipient.nodes), queued=queued, now=now, rules=rules)
        if outcome is Outcome.HOT or outcome is Outcome.COLD:
            result = _enter(connection, delivery, message, recipient, outcome, now, rules)
        else:
            result = _known(connection, delivery, message, now, rules) or Routed(outcome)
        if result.outcome is Outcome.HOT:
            hot.append(_row(delivery, message, result))
            pokes += recipient.poke(now)
        results.append(result)
    connection.executemany(HOT["enqueue"], hot)
    for recipient in recipients.values():
        recipient.save(connection)
    return results, pokes


def _enter(
    connection: sqlite3.Connection,
    delivery: Delivery,
    message: Message,
    recipient: Recipient,
    outcome: Outcome,
    now: int,
    rules: StoreRules,
) -> Routed:
    before = recipient.sequence
    sequence = recipient.next_sequence(now)
    state = entered_state(delivery, message, outcome, rules)
    record = (message.id, message.recipient, message.lane, sequence, state, message.keyed)
    if connection.execute(HOT["register"], record).rowcount == 0:
        recipient.sequence = before
        known = _known(connection, delivery, message, now, rules)
        assert known is not None, "an id that cannot be registered is known"
        return known
    if outcome is Outcome.HOT:
        recipient.hot += 1
        # A reader that began before must know that cold may get a copy.
        recipient.cold_version += state is State.DOUBLE
    else:
        recipient.cold += 1
        recipient.pending += 1
        recipient.cold_version += 1
        recipient.cold_empty = 0
    return Routed(outcome, sequence, now)


def _known(
    connection: sqlite3.Connection, delivery: Delivery, message: Message, now: int, rules: StoreRules
) -> Routed | None:
    row = connection.execute(HOT["registered"], (message.id,)).fetchone()
    if row is None:
        return None
    user, _, sequence, number, _ = row
    if user != message.recipient:
        return Routed(Outcome.ID_CONFLICT)
    state = State(number)
    if redelivered_state(state, delivery) is not state:
        connection.execute(HOT["may_be_cold"], (message.id,))
    return Routed(known_outcome(state, write_through=rules.write_through), sequence, now)


def _row(delivery: Delivery, message: Message, result: Routed) -> tuple[object, ...]:
    return (
        message.recipient, message.lane, result.sequence, message.id, result.queued_at, message.accepted_at,
        message.ephemeral, message.keyed, delivery.attempt, message.envelope,
    )  # fmt: skip
