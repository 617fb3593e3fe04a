"""Messages as documents, in both tiers.

A document holds ``place`` (lane and sequence in one number: the order of a page), ``queued_at``, ``accepted_at``
(µs since 1970), ``keyed``, ``attempts``, ``size`` (bytes of the envelope), ``checksum`` (missing where an earlier
version wrote it) and ``envelope``; with traces also ``trace`` (``Message.trace``). Its id is the message id.
"""

from __future__ import annotations

from typing import Any

from router.backends.firestore.names import document_id, name_of, place_number, place_of
from router.backends.firestore.wire import Document, Write, integers, new_write
from router.checksum import NEVER
from router.messages import Lane, Message, Queued

_LANES = (Lane.EXPRESS, Lane.NORMAL)
BARE = ("place", "queued_at", "accepted_at", "keyed", "attempts", "size")
"""The fields of a message without its envelope."""


def message_write(collection: str, queued: Queued) -> Write:
    """A write of the whole document of ``queued`` into ``collection``."""
    message = queued.message
    write = new_write()
    write.update.name = f"{collection}/{document_id(message.id)}"
    fields = write.update.fields
    integers(
        fields,
        (
            ("place", place_number(message.lane, queued.sequence)),
            ("queued_at", queued.queued_at),
            ("accepted_at", message.accepted_at),
            ("attempts", queued.attempts),
        ),
    )
    fields["keyed"].boolean_value = message.keyed
    if message.trace:
        fields["trace"].string_value = message.trace
    content_fields(fields, message)
    return write


def content_fields(fields: Any, message: Message) -> None:
    """Set the fields that hold the envelope."""
    integers(fields, [("size", len(message.envelope))])
    if message.checksum is not None:
        integers(fields, [("checksum", message.checksum)])
    fields["envelope"].bytes_value = message.envelope


def queued_message(user: str, document: Document, announced: int | None) -> Queued:
    """The message in ``document``; it counts as announced if its sequence is at most ``announced``, or that is
    ``None``."""
    fields = document.fields
    lane, sequence = place_of(fields["place"].integer_value)
    message = Message(
        id=id_of(document),
        recipient=user,
        envelope=fields["envelope"].bytes_value if "envelope" in fields else b"",
        lane=_LANES[lane],
        ephemeral="ephemeral_at" in fields,
        accepted_at=fields["accepted_at"].integer_value,
        keyed=fields["keyed"].boolean_value,
        checksum=_checksum(fields),
        trace=fields["trace"].string_value if "trace" in fields else "",
    )
    return Queued(
        message,
        sequence,
        fields["queued_at"].integer_value,
        announced is None or sequence <= announced,
        fields["attempts"].integer_value,
        left_out=0 if message.envelope else fields["size"].integer_value,
    )


def _checksum(fields: Any) -> int | None:
    """The stored checksum; ``None`` if an earlier version stored none. ``NEVER`` if the envelope was not read."""
    if "envelope" not in fields or fields["envelope"].WhichOneof("value_type") != "bytes_value":
        return NEVER
    return fields["checksum"].integer_value if "checksum" in fields else None


def id_of(document: Document) -> str:
    """The id of the message in ``document``."""
    return name_of(document.name.rpartition("/")[2])
