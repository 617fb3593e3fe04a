"""The atomic routing step: presence, sequence, dedupe, enqueue and the decision to poke, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from router.backends.embedded.presence import nodes_of
from router.backends.embedded.queries import load
from router.backends.embedded.rows import json_list
from router.backends.rules import StoreRules, decide, next_sequence
from router.lifecycle import State, entry, redelivery, redelivery_owes, state_of, step
from router.messages import Delivery, Message, Outcome, Routed

HOT = load("hot")

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""


class Recipient:
    """One user's state within a transaction."""

    __slots__ = (
        "cold", "cold_bytes", "cold_empty", "cold_version", "fetched", "hot", "hot_bytes", "inbound_until", "nodes",
        "pending", "poked_at", "sequence", "user",
    )  # fmt: skip

    def __init__(self, user: str, row: Sequence[int], nodes: list[str]) -> None:
        """``row``: its columns in ``hot.recipients``, without the user."""
        self.user = user
        (
            self.sequence, self.hot, self.hot_bytes, self.cold, self.cold_bytes, self.inbound_until, self.pending,
            self.cold_version, self.cold_empty, self.poked_at, self.fetched,
        ) = row  # fmt: skip
        self.nodes = nodes

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

    def row(self) -> tuple[object, ...]:
        """The parameters of ``hot.save_recipient``."""
        return (
            self.user, self.sequence, self.hot, self.hot_bytes, self.cold, self.cold_bytes, self.inbound_until,
            self.pending, self.cold_version, self.cold_empty, self.poked_at, self.fetched,
        )  # fmt: skip


def recipients_of(
    connection: sqlite3.Connection, users: Iterable[str], now: int, rules: StoreRules
) -> dict[str, Recipient]:
    """The states of ``users``, by name: read together, since a statement costs more than what it finds."""
    wanted = dict.fromkeys(users)  # in their order, whatever the hash seed
    nodes = nodes_of(connection, wanted, now)
    rows = {user: row for user, *row in connection.execute(HOT["recipients"], (json_list(wanted),))}
    for user in wanted:
        if user not in rows:
            (cold_empty,) = connection.execute(HOT["nothing_in_cold"], (rules.fresh_cold_empty, user)).fetchone()
            # The version from the clock, so that none comes again of a user who was forgotten.
            rows[user] = [0, 0, 0, 0, 0, 0, 0, now, cold_empty, 0, 1]
    return {user: Recipient(user, rows[user], nodes.get(user, [])) for user in wanted}


def save(connection: sqlite3.Connection, recipients: Iterable[Recipient]) -> None:
    """Write back what changed."""
    connection.executemany(HOT["save_recipient"], [recipient.row() for recipient in recipients])


def route(
    connection: sqlite3.Connection, deliveries: Sequence[Delivery], now: int, rules: StoreRules
) -> tuple[list[Routed], Pokes]:
    """Route ``deliveries`` in their order; the pokes are sent once the transaction is committed."""
    recipients = recipients_of(connection, (_message(delivery).recipient for delivery in deliveries), now, rules)
    hot: list[tuple[object, ...]] = []
    pokes: Pokes = []
    results = []
    for delivery in deliveries:
        message = _message(delivery)
        recipient = recipients[message.recipient]
        outcome = decide(
            message,
            online=bool(recipient.nodes),
            queued=recipient.hot + recipient.cold,
            size=recipient.hot_bytes + recipient.cold_bytes,
            inbound_until=recipient.inbound_until,
            now=now,
            rules=rules,
        )
        if outcome is Outcome.HOT or outcome is Outcome.COLD:
            result = _enter(connection, delivery, message, recipient, outcome, now, rules)
        else:
            result = _known(connection, delivery, message, now, rules) or Routed(outcome)
        if result.outcome is Outcome.HOT:
            hot.append(_row(delivery, message, result))
            pokes += recipient.poke(now)
        results.append(result)
    connection.executemany(HOT["enqueue"], hot)
    save(connection, recipients.values())
    return results, pokes


def _message(delivery: Delivery) -> Message:
    assert delivery.message is not None, "only readable deliveries are routed"
    return delivery.message


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
    state = step(State.UNKNOWN, entry(delivery, outcome, write_through=rules.write_through)).after
    size = len(message.envelope)
    record = (message.id, message.recipient, message.lane, sequence, state, message.keyed, size)
    if connection.execute(HOT["register"], record).rowcount == 0:
        recipient.sequence = before
        known = _known(connection, delivery, message, now, rules)
        assert known is not None, "an id that cannot be registered is known"
        return known
    recipient.inbound_until = rules.charged(recipient.inbound_until, size, now)
    if outcome is Outcome.HOT:
        recipient.hot += 1
        recipient.hot_bytes += size
        # A reader that began before must know that cold may get a copy.
        recipient.cold_version += state is State.DOUBLE
    else:
        recipient.cold += 1
        recipient.cold_bytes += size
        recipient.pending += 1
        recipient.cold_version += 1
        recipient.cold_empty = 0
    return Routed(outcome, sequence, now)


def _known(
    connection: sqlite3.Connection, delivery: Delivery, message: Message, now: int, rules: StoreRules
) -> Routed | None:
    name = message.id, message.recipient
    row = connection.execute(HOT["registered"], name).fetchone()
    if row is None:
        return None
    _, sequence, number, _, _ = row
    state = state_of(number)
    if redelivery(state, delivery) is not state:
        connection.execute(HOT["may_be_cold"], name)
    return Routed(redelivery_owes(state, write_through=rules.write_through), sequence, now)


def _row(delivery: Delivery, message: Message, result: Routed) -> tuple[object, ...]:
    return (
        message.recipient, message.lane, result.sequence, message.id, result.queued_at, message.accepted_at,
        message.ephemeral, message.keyed, delivery.attempt, message.checksum, message.envelope,
    )  # fmt: skip
