"""The online store's state of one user: one document. Every change to the user's presence or queue goes through it, so
these changes are serialized.

Fields, times in µs since 1970:

    sequence        the highest that was ever given
    hot, cold       messages in hot; messages in cold or pending
    hot_bytes, cold_bytes            the bytes of their envelopes; without mail that an earlier version routed
    inbound_until   when the inbound budget is whole again
    pending         cold writes that are not confirmed: id, lane and sequence of each
    cold_version    increased by every operation that may put mail into cold
    cold_empty      cold is known to be empty
    announced       the push commands of hot mail up to this sequence are published
    poked_at, fetched                the last poke, and whether the user has fetched since
    cut_at          when the last page was cut short, or when the user acknowledged after it; 0 or missing if a fetch
                    has reached the end since
    move_owner, move_until           the migration lease
    doubled_express, doubled_normal  hot mail of a lane up to this sequence has, or may get, a copy in cold
    hot_since       all hot mail was queued at or after this
    ephemeral_at    all ephemeral hot mail was accepted at or after this; 0 if there is none
    connections     id, node, since and lease_until of each
    offline_since   when the last connection was seen to end, also while there is one again; 0 or missing if none was

and fields for walks over all users, each only where it applies:

    busy            the user, while there is hot mail, an unanswered poke or a page that was cut short
    live            number of connections
    lease_at        shard and time (``names.sharded``) when the first lease runs out
    ephemeral_due   shard and ``ephemeral_at``
    idle_at         shard and time since when nothing is queued and the user has no connection
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from router.backends.firestore.names import sharded
from router.backends.firestore.wire import Document, Write, integers, new_write
from router.backends.routing_rules import cut_after, next_cut, next_sequence
from router.messages import Connection, Lane, Message, Pending

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""

_INTEGERS = (
    "sequence", "hot", "hot_bytes", "cold", "cold_bytes", "cold_version", "announced", "poked_at", "move_until",
    "doubled_express", "doubled_normal", "hot_since", "ephemeral_at", "cut_at", "inbound_until",
    "offline_since",
)  # fmt: skip
_BOOLEANS = ("cold_empty", "fetched")


class Recipient(Struct):
    """The fields of one user's document."""

    user: str
    cold_empty: bool
    sequence: int = 0
    hot: int = 0
    hot_bytes: int = 0
    cold: int = 0
    cold_bytes: int = 0
    pending: dict[str, Pending] = msgspec.field(default_factory=dict)
    cold_version: int = 0
    announced: int = 0
    poked_at: int = 0
    fetched: bool = True
    move_owner: str = ""
    move_until: int = 0
    doubled_express: int = 0
    doubled_normal: int = 0
    hot_since: int = 0
    ephemeral_at: int = 0
    cut_at: int = 0
    inbound_until: int = 0
    offline_since: int = 0
    connections: list[Connection] = msgspec.field(default_factory=list)

    @property
    def queued(self) -> int:
        return self.hot + self.cold

    def live(self, now: int) -> list[Connection]:
        return [connection for connection in self.connections if connection.lease_until > now]

    def end_leases(self, now: int) -> None:
        """Remove connections whose leases ran out. A lease that ran out by the clock of one process has ended for all:
        the connection registers again, and is poked for mail that went to cold meanwhile."""
        self.keep(self.live(now), now)

    def keep(self, connections: list[Connection], now: int) -> None:
        """Keep only ``connections``. If others have ended and cold may have mail, which these may have fetched without
        acknowledging it, mark the page as cut short, so that a sweeper pokes the live ones. An earlier mark stays, so
        that its poke is not delayed."""
        ended = len(connections) < len(self.connections)
        if ended and not connections:
            self.offline_since = min(now, max(connection.lease_until for connection in self.connections))
        self.connections = connections
        if ended and not self.cut_at and self.live(now) and (self.pending or not self.cold_empty):
            self.move_cut(now)

    def nodes(self, now: int) -> list[str]:
        return list(dict.fromkeys(connection.node for connection in self.live(now)))

    def next_sequence(self, now: int) -> int:
        """Give a sequence, higher than any before."""
        self.sequence = next_sequence(self.sequence, now)
        return self.sequence

    def poke(self, now: int) -> Pokes:
        """The pokes for a new message; none if the user has not fetched since the last ones."""
        nodes = self.nodes(now) if self.fetched else []
        if nodes:
            self.fetched, self.poked_at = False, now
        return [(node, self.user) for node in nodes]

    def poke_again(self, now: int) -> None:
        """Poke all connections, whether the user has fetched or not; this poke also replaces the mark of a cut page."""
        self.fetched, self.poked_at, self.cut_at = False, now, 0

    def look(self, now: int, limit: int, max_bytes: int) -> None:
        """The first read of a fetch: new mail pokes again from here on, and the page may count as cut short."""
        cold_empty = self.cold_empty and not self.pending
        # The page is read after this; no document is larger than 1 MiB.
        fits = self.hot <= min(limit, max_bytes >> 20)
        self.cut_at = cut_after(
            self.cut_at,
            now,
            more=self.hot > limit,
            cold_empty=cold_empty and fits,
            poked=not self.fetched,
            online=bool(self.connections),
        )
        self.fetched = True

    def move_cut(self, now: int) -> None:
        """Set a new mark: a page was cut short, or the user has acknowledged after it."""
        self.cut_at = next_cut(self.cut_at, now)

    def stop_poking(self) -> None:
        """Forget unanswered pokes and cut pages."""
        self.fetched, self.cut_at = True, 0

    @property
    def queued_bytes(self) -> int:
        return self.hot_bytes + self.cold_bytes

    def enter_hot(self, message: Message, now: int) -> None:
        """Count ``message``, which enters the hot queue."""
        if not self.hot:
            self.hot_since = now
        self.hot += 1
        self.hot_bytes += len(message.envelope)
        if message.ephemeral:
            self.ephemeral_at = min(self.ephemeral_at or message.accepted_at, message.accepted_at)

    def leave_hot(self, count: int, size: int) -> None:
        """Subtract ``count`` messages, with ``size`` bytes of envelopes, which leave the hot queue."""
        self.hot -= count
        self.hot_bytes = max(0, self.hot_bytes - size) if self.hot else 0
        if not self.hot:
            self.hot_since = self.ephemeral_at = 0

    def enter_cold(self, size: int) -> None:
        """Count a message with an envelope of ``size`` bytes, which is in cold or pending."""
        self.cold += 1
        self.cold_bytes += size

    def leave_cold(self, size: int) -> None:
        """Subtract one that left cold. With no messages left, clear the bytes: a node of an earlier version counts
        messages only."""
        self.cold = max(0, self.cold - 1)
        self.cold_bytes = max(0, self.cold_bytes - size) if self.cold else 0

    def abandoned(self, before: int) -> list[str]:
        """The ids of pending cold writes with sequences lower than ``before``."""
        return [write.id for write in self.pending.values() if write.sequence < before]

    def cold_changed(self) -> None:
        """Record that mail has come to cold, or may have."""
        self.cold_version += 1
        self.cold_empty = False

    def is_doubled(self, lane: int, sequence: int) -> bool:
        """Whether a migrator has taken the hot message of this place, so that cold may have a copy."""
        return sequence <= (self.doubled_express if lane == Lane.EXPRESS else self.doubled_normal)

    def double(self, lane: int, sequence: int) -> None:
        """Record that a migrator takes the hot message of this place, and with it all in front of it in its lane."""
        if lane == Lane.EXPRESS:
            self.doubled_express = max(self.doubled_express, sequence)
        else:
            self.doubled_normal = max(self.doubled_normal, sequence)

    def idle(self) -> bool:
        """Whether nothing is queued and the user has no connection."""
        return not (self.hot or self.cold or self.pending or self.connections)


def read(user: str, document: Document | None, *, cold_empty: bool) -> Recipient:
    """The state in ``document``; without one, the state of an unknown user."""
    if document is None:
        return Recipient(user, cold_empty)
    fields = document.fields
    values: dict[str, Any] = {name: fields[name].integer_value for name in _INTEGERS}
    values |= {name: fields[name].boolean_value for name in _BOOLEANS}
    return Recipient(
        user,
        move_owner=fields["move_owner"].string_value,
        pending={write.id: write for write in map(_pending, fields["pending"].array_value.values)},
        connections=connections(user, document),
        **values,
    )


def connections(user: str, document: Document) -> list[Connection]:
    """Those in a ``document`` that may have no other field."""
    return [_connection(user, value) for value in document.fields["connections"].array_value.values]


def write(path: str, recipient: Recipient, now: int) -> Write:
    """A write of the whole document of ``recipient``."""
    written = new_write()
    written.update.name = path
    fields = written.update.fields
    integers(fields, ((name, getattr(recipient, name)) for name in _INTEGERS))
    for name in _BOOLEANS:
        fields[name].boolean_value = getattr(recipient, name)
    fields["move_owner"].string_value = recipient.move_owner
    fields["pending"].array_value.SetInParent()
    for pending in recipient.pending.values():
        entry = fields["pending"].array_value.values.add().map_value.fields
        entry["id"].string_value = pending.id
        integers(entry, (("lane", pending.lane), ("sequence", pending.sequence)))
    fields["connections"].array_value.SetInParent()
    for connection in recipient.connections:
        entry = fields["connections"].array_value.values.add().map_value.fields
        entry["id"].string_value = connection.id
        entry["node"].string_value = connection.node
        integers(entry, (("since", connection.since), ("lease_until", connection.lease_until)))
    _index(fields, recipient, now)
    return written


def _index(fields: Any, recipient: Recipient, now: int) -> None:
    user = recipient.user
    if recipient.hot or recipient.cut_at or not recipient.fetched:
        fields["busy"].string_value = user
    if recipient.connections:
        first = min(connection.lease_until for connection in recipient.connections)
        integers(fields, (("live", len(recipient.connections)), ("lease_at", sharded(user, first))))
    if recipient.ephemeral_at:
        integers(fields, [("ephemeral_due", sharded(user, recipient.ephemeral_at))])
    if recipient.idle():
        integers(fields, [("idle_at", sharded(user, now))])


def _pending(value: Any) -> Pending:
    fields = value.map_value.fields
    return Pending(fields["id"].string_value, Lane(fields["lane"].integer_value), fields["sequence"].integer_value)


def _connection(user: str, value: Any) -> Connection:
    fields = value.map_value.fields
    return Connection(
        user,
        fields["id"].string_value,
        fields["node"].string_value,
        fields["since"].integer_value,
        fields["lease_until"].integer_value,
    )
