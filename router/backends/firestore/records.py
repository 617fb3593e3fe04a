"""The records of routed messages: one document for each, which outlives the message.

``{online.collection}-ids/{hash of user and id}-{message id}``: ``user``, ``lane``, ``sequence``, ``state`` (see
``router.lifecycle``), ``keyed``, ``size`` (bytes of the envelope; missing if an earlier version wrote it), and, once
the message is in no queue,

    until      when the tombstone ends (µs since 1970)
    forget     the same with a shard (``names.sharded``), when cold has no copy any more
    owed       when the message was acknowledged, with a shard, while a copy in cold must be deleted
    expire_at  when Firestore's own TTL may delete it: later than ``until``, in case no sweeper runs

In an earlier version no two users had the same message id. Its records have a hash of the id only, and keep it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from router.backends.firestore.names import earlier_record_id, record_id, recorded, sharded
from router.backends.firestore.wire import Document, Write, deletion, integers, new_write, only_if
from router.backends.routing_rules import DAY_SECONDS, StoreRules
from router.clock import MICROSECONDS
from router.lifecycle import GONE, State
from router.messages import Queued

BACKSTOP_SECONDS = DAY_SECONDS
ANYHOW = object()
"""Takes the place of an update time: overwrite whatever is there."""


class Record(Struct):
    """``update_time`` is that of the document that was read; ``None`` if there was none."""

    id: str
    user: str
    lane: int
    sequence: int
    state: State
    keyed: bool
    size: int = 0
    until: int = 0
    acked_at: int = 0
    update_time: Any = None
    earlier: bool = False
    """Its document has the name that an earlier version gave it."""

    def end(self, state: State, now: int, rules: StoreRules) -> None:
        """Make it the record of a message that leaves the queues at ``now``."""
        self.state = state
        self.until = rules.remember_until(now, keyed=self.keyed)
        self.acked_at = now

    def forgettable(self, at: int) -> bool:
        return self.state is State.ACKED and self.until <= at


def record_of(queued: Queued, state: State, update_time: Any = None) -> Record:
    """A new record of a message."""
    message = queued.message
    values = message.id, message.recipient, message.lane, queued.sequence, state, message.keyed, queued.size
    return Record(*values, update_time=update_time)


def read(document: Document) -> Record:
    fields, name = document.fields, document.name.rpartition("/")[2]
    id_ = recorded(name)
    return Record(
        id=id_,
        user=fields["user"].string_value,
        lane=fields["lane"].integer_value,
        sequence=fields["sequence"].integer_value,
        state=State(fields["state"].integer_value),
        keyed=fields["keyed"].boolean_value,
        size=fields["size"].integer_value,
        until=fields["until"].integer_value,
        acked_at=fields["acked_at"].integer_value,
        update_time=document.update_time,
        earlier=name == earlier_record_id(id_),
    )


def path(collection: str, user: str, id_: str) -> str:
    """``collection``: the path of the records' collection."""
    return f"{collection}/{record_id(user, id_)}"


def earlier_path(collection: str, id_: str) -> str:
    """The path that an earlier version gave the record of ``id_``, of any user."""
    return f"{collection}/{earlier_record_id(id_)}"


def write(collection: str, record: Record) -> Write:
    """A write of the whole document of ``record``, or its deletion if the state is ``UNKNOWN``. Firestore refuses it if
    the document has changed since it was read."""
    earlier = record.earlier
    name = earlier_path(collection, record.id) if earlier else path(collection, record.user, record.id)
    if record.state is State.UNKNOWN:
        return only_if(deletion(name), record.update_time)
    written = new_write()
    written.update.name = name
    fields = written.update.fields
    fields["user"].string_value = record.user
    fields["keyed"].boolean_value = record.keyed
    integers(fields, ((name, getattr(record, name)) for name in ("lane", "sequence", "state", "size")))
    if record.state in GONE:
        integers(fields, (("until", record.until), ("acked_at", record.acked_at)))
    if record.state is State.ACKED:
        integers(fields, [("forget", sharded(record.id, record.until))])
        fields["expire_at"].timestamp_value.FromMicroseconds(record.until + BACKSTOP_SECONDS * MICROSECONDS)
    if record.state is State.ACKED_OWED:
        integers(fields, [("owed", sharded(record.id, record.acked_at))])
    return written if record.update_time is ANYHOW else only_if(written, record.update_time)
