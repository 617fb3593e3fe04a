"""The state of recipients within a transaction: sequences, counters and the poke flag."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from router.backends.embedded.presence import nodes_of
from router.backends.embedded.queries import load
from router.backends.embedded.rows import json_list
from router.backends.routing_rules import StoreRules, next_sequence
from router.messages import Outcome

HOT = load("hot")
DROPPED = frozenset({Outcome.DROPPED_OFFLINE, Outcome.DROPPED_EXPIRED})

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""


class Recipient:
    """One user's state within a transaction."""

    __slots__ = (
        "accepted", "cold", "cold_bytes", "cold_empty", "cold_version", "dead", "dropped", "fetched", "hot",
        "hot_bytes", "inbound_until", "nodes", "pending", "poked_at", "sequence", "user",
    )  # fmt: skip

    def __init__(self, user: str, row: Sequence[int], nodes: list[str]) -> None:
        """``row``: its columns in ``hot.recipients``, without the user."""
        self.user = user
        (
            self.sequence, self.hot, self.hot_bytes, self.cold, self.cold_bytes, self.inbound_until, self.pending,
            self.cold_version, self.cold_empty, self.poked_at, self.fetched, self.accepted, self.dropped, self.dead,
        ) = row  # fmt: skip
        self.nodes = nodes

    def next_sequence(self, now: int) -> int:
        """Give a sequence, higher than any before."""
        sequence = next_sequence(self.sequence, now)
        self.sequence = sequence
        return sequence

    def turn_away(self, outcome: Outcome) -> None:
        """Count a message that comes into no queue, as what becomes of it."""
        if outcome in DROPPED:
            self.dropped += 1
        else:
            self.dead += 1

    def poke(self, now: int) -> Pokes:
        """The pokes for a new message; none if the user has not fetched since the last ones."""
        if not self.fetched or not self.nodes:
            return []
        self.fetched, self.poked_at = 0, now
        return [(node, self.user) for node in self.nodes]

    def row(self) -> tuple[object, ...]:
        """The parameters of ``hot.save_recipient``."""
        return (
            self.user, self.sequence, self.hot, self.hot_bytes, self.cold, self.cold_bytes, self.inbound_until,
            self.pending, self.cold_version, self.cold_empty, self.poked_at, self.fetched, self.accepted, self.dropped,
            self.dead,
        )  # fmt: skip


def recipients_of(
    connection: sqlite3.Connection, users: Iterable[str], now: int, rules: StoreRules
) -> dict[str, Recipient]:
    """By name: the states of ``users``, read in one statement, since a statement costs more than its rows."""
    wanted = dict.fromkeys(users)  # in their order, whatever the hash seed
    nodes = nodes_of(connection, wanted, now)
    if len(wanted) == 1:
        found = connection.execute(HOT["recipient"], tuple(wanted))
    else:
        found = connection.execute(HOT["recipients"], (json_list(wanted),))
    rows = {user: row for user, *row in found}
    for user in wanted:
        if user not in rows:
            (cold_empty,) = connection.execute(HOT["nothing_in_cold"], (rules.fresh_cold_empty, user)).fetchone()
            # The version is the clock's, so that none repeats of a user who was forgotten.
            rows[user] = [0, 0, 0, 0, 0, 0, 0, now, cold_empty, 0, 1, 0, 0, 0]
    return {user: Recipient(user, rows[user], nodes.get(user, [])) for user in wanted}


def save(connection: sqlite3.Connection, recipients: Iterable[Recipient]) -> None:
    """Write back the states that changed."""
    connection.executemany(HOT["save_recipient"], [recipient.row() for recipient in recipients])


def count(
    db: sqlite3.Connection,
    user: str,
    *,
    hot: int = 0,
    hot_bytes: int = 0,
    cold: int = 0,
    cold_bytes: int = 0,
    pending: int = 0,
    cold_changed: int = 0,
    acknowledged: int = 0,
    expired: int = 0,
    dropped: int = 0,
    dead: int = 0,
) -> None:
    """Add to what is in the queues of ``user``, and say what became of that which has left them."""
    if hot or cold or pending or cold_changed:
        values: dict[str, object] = {"user": user, "hot": hot, "hot_bytes": hot_bytes, "cold": cold}
        values |= {"cold_bytes": cold_bytes, "pending": pending, "cold_changed": cold_changed}
        values |= {"acknowledged": acknowledged, "expired": expired, "dropped": dropped, "dead": dead}
        db.execute(HOT["count"], values)


def count_each(db: sqlite3.Connection, changes: Mapping[str, Counter[str]]) -> None:
    """Add ``changes`` to the counters of each user (``hot.count``)."""
    for user, own in changes.items():
        count(db, user, **own)
