"""The record of each id that was routed to a user: a document of its own, which outlives the message.

``{online.collection}-ids/{hash of user and id}-{message id}``: ``user``, ``lane``, ``sequence``, ``state`` (see
``router.lifecycle``), ``keyed``, ``size`` (bytes of the envelope; missing where an earlier version wrote it), and, of
those in no queue any more,

    until      when it may be forgotten (µs since 1970)
    forget     the same with a shard (``names.sharded``), once no copy is left in cold
    owed       when it was acknowledged, with a shard, while a copy in cold must be deleted
    expire_at  when Firestore's own TTL may delete it: later than the rule, in case that no sweeper runs

Records of a version in which an id belonged to one user among all have a hash of the id alone, and keep it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from router.backends.firestore.names import earlier_record_id, record_id, recorded, sharded
from router.backends.firestore.wire import Document, Write, deletion, integers, new_write, only_if
from router.backends.rules import DAY_SECONDS, StoreRules
from router.clock import MICROSECONDS
from router.lifecycle import GONE, State
from router.messages import Queued

BACKSTOP_SECONDS = DAY_SECONDS
ANYHOW = object()
"""In place of an update time: whatever was there before is written over."""


class Record(Struct):
    """``update_time`` says what was read: ``None`` where there was nothing."""

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
    """It is where an earlier version put it."""

    def end(self, state: State, now: int, rules: StoreRules) -> None:
        """The message leaves the queues at ``now``."""
        self.state = state
        self.until = rules.remember_until(now, keyed=self.keyed)
        self.acked_at = now

    def forgettable(self, at: int) -> bool:
        return self.state is State.ACKED and self.until <= at


def record_of(queued: Queued, state: State, update_time: Any = None) -> Record:
    """What is to be recorded of a message."""
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
    """Where an earlier version put the record of ``id_``, whosever it was."""
    return f"{collection}/{earlier_record_id(id_)}"


def write(collection: str, record: Record) -> Write:
    """Write the document of ``record``, whole, or delete it where nothing is to be known of it; unless somebody else
    changed it since it was read."""
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
