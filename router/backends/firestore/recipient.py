"""The online store's state of one user: one document, which every change to their presence or queue is serialized by.

Fields, times in µs since 1970:

    sequence        the highest that was ever given
    hot, cold       messages in hot; in cold, or on their way there
    hot_bytes, cold_bytes            the bytes of their envelopes; without those that an earlier version routed
    inbound_until   when the inbound budget is whole again
    pending         cold writes under way: id, lane and sequence of each
    cold_version    rises with whatever may put mail into cold
    cold_empty      cold is known to be empty
    announced       hot mail up to this sequence was announced by a push command
    poked_at, fetched                the last poke, and whether the user has fetched since
    cut_at          when a page was cut short, or its user acknowledged after that; 0 where a fetch has come to the end
                    since, and where it is missing
    move_owner, move_until           the migration lease
    doubled_express, doubled_normal  hot mail of a lane up to this sequence has, or may get, a copy in cold
    hot_since       no hot message was queued before
    ephemeral_at    no ephemeral one was accepted before; 0 where there is none
    connections     id, node, since and lease_until of each

and, only where they apply, what walks over all users go along:

    busy            the user, while there is hot mail, an unanswered poke or a page that was cut short
    live            how many connections
    lease_at, ephemeral_due, idle_at  shard and time (``names.sharded``) of the first lease that runs out, of
                    ``ephemeral_at``, and since when nothing is queued and nobody connected
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from router.backends.firestore.names import sharded
from router.backends.firestore.wire import Document, Write, integers, new_write
from router.backends.rules import cut_after, next_cut, next_sequence
from router.messages import Connection, Lane, Message, Pending

Pokes = list[tuple[str, str]]
"""(node, user) pairs."""

_INTEGERS = (
    "sequence", "hot", "hot_bytes", "cold", "cold_bytes", "cold_version", "announced", "poked_at", "move_until",
    "doubled_express", "doubled_normal", "hot_since", "ephemeral_at", "cut_at", "inbound_until",
)  # fmt: skip
_BOOLEANS = ("cold_empty", "fetched")


class Recipient(Struct):
    """The fields of one user's document, and what may be asked of them."""

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
    connections: list[Connection] = msgspec.field(default_factory=list)

    @property
    def queued(self) -> int:
        return self.hot + self.cold

    def live(self, now: int) -> list[Connection]:
        return [connection for connection in self.connections if connection.lease_until > now]

    def end_leases(self, now: int) -> None:
        """A lease that ran out by one clock has ended for all: its connection registers again, and is poked for what
        went past it."""
        self.keep(self.live(now), now)

    def keep(self, connections: list[Connection], now: int) -> None:
        """Only these stay. Those that are live are poked for what another may have fetched from cold and not
        acknowledged; a poke that is due for an earlier page is not put off."""
        ended = len(connections) < len(self.connections)
        self.connections = connections
        if ended and not self.cut_at and self.live(now) and (self.pending or not self.cold_empty):
            self.move_cut(now)

    def nodes(self, now: int) -> list[str]:
        return list(dict.fromkeys(connection.node for connection in self.live(now)))

    def next_sequence(self, now: int) -> int:
        """One that is given to nobody else."""
        self.sequence = next_sequence(self.sequence, now)
        return self.sequence

    def poke(self, now: int) -> Pokes:
        """The pokes that a new message owes: none while nobody has fetched since the last ones."""
        nodes = self.nodes(now) if self.fetched else []
        if nodes:
            self.fetched, self.poked_at = False, now
        return [(node, self.user) for node in nodes]

    def poke_again(self, now: int) -> None:
        """All are poked, fetched or not; this poke stands for a page that was cut short too."""
        self.fetched, self.poked_at, self.cut_at = False, now, 0

    def look(self, now: int, limit: int, max_bytes: int) -> None:
        """A fetch looks: from here on new mail is poked again; its page may count as cut short."""
        cold_empty = self.cold_empty and not self.pending
        # The page is read after this. No document is larger than a MiB.
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
        """A page was cut short, or its user has acknowledged after that."""
        self.cut_at = next_cut(self.cut_at, now)

    def hush(self) -> None:
        """No poke and no page waits for an answer."""
        self.fetched, self.cut_at = True, 0

    @property
    def queued_bytes(self) -> int:
        return self.hot_bytes + self.cold_bytes

    def enter_hot(self, message: Message, now: int) -> None:
        """``message`` is in the hot queue."""
        if not self.hot:
            self.hot_since = now
        self.hot += 1
        self.hot_bytes += len(message.envelope)
        if message.ephemeral:
            self.ephemeral_at = min(self.ephemeral_at or message.accepted_at, message.accepted_at)

    def leave_hot(self, count: int, size: int) -> None:
        """``count`` messages, with ``size`` bytes of envelopes, have left the hot queue."""
        self.hot -= count
        self.hot_bytes = max(0, self.hot_bytes - size) if self.hot else 0
        if not self.hot:
            self.hot_since = self.ephemeral_at = 0

    def enter_cold(self, size: int) -> None:
        """A message with an envelope of ``size`` bytes is in cold, or on its way there."""
        self.cold += 1
        self.cold_bytes += size

    def leave_cold(self, size: int) -> None:
        """One is not there any more. No messages have no bytes: a node of an earlier version counts messages only."""
        self.cold = max(0, self.cold - 1)
        self.cold_bytes = max(0, self.cold_bytes - size) if self.cold else 0

    def abandoned(self, before: int) -> list[str]:
        """The ids of cold writes under way that were given their places before this sequence."""
        return [write.id for write in self.pending.values() if write.sequence < before]

    def cold_changed(self) -> None:
        """Mail has come, or may come, into cold."""
        self.cold_version += 1
        self.cold_empty = False

    def is_doubled(self, lane: int, sequence: int) -> bool:
        """Whether a migrator has taken the hot message of this place, so that cold may have a copy."""
        return sequence <= (self.doubled_express if lane == Lane.EXPRESS else self.doubled_normal)

    def double(self, lane: int, sequence: int) -> None:
        """A migrator takes the hot message of this place, and with it all before it in its lane."""
        if lane == Lane.EXPRESS:
            self.doubled_express = max(self.doubled_express, sequence)
        else:
            self.doubled_normal = max(self.doubled_normal, sequence)

    def idle(self) -> bool:
        """Nothing is queued and nobody is connected."""
        return not (self.hot or self.cold or self.pending or self.connections)


def read(user: str, document: Document | None, *, cold_empty: bool) -> Recipient:
    """The state in ``document``; that of a user of whom nothing is known where there is none."""
    if document is None:
        return Recipient(user, cold_empty)
    fields = document.fields
    values: dict[str, Any] = {name: fields[name].integer_value for name in _INTEGERS}
    values |= {name: fields[name].boolean_value for name in _BOOLEANS}
    return Recipient(
        user,
        move_owner=fields["move_owner"].string_value,
        pending={write.id: write for write in map(_pending, fields["pending"].array_value.values)},
        connections=[_connection(user, value) for value in fields["connections"].array_value.values],
        **values,
    )


def write(path: str, recipient: Recipient, now: int) -> Write:
    """Write the document of ``recipient``, whole."""
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
