"""What go-routing-service stored for one message, and how it is read. Pure: no store is asked here.

In Firestore a message is ``{collection}/{user}/messages/{id}``, with ``queued_at`` and ``envelope``, a map that has the
Go names of the envelope's fields. In Redis it is one string of a list: JSON with ``id``, ``envelope`` (ProtoJSON) and,
from later versions, ``queued_at``. Neither payloads nor anything else of an envelope is in an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from router import envelope, urn
from router.checksum import checksum
from router.errors import InvalidEnvelope, RouterError
from router.messages import Message

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:-]{0,127}")
"""What every backend takes as the id of a message."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = {
    name.replace("_", ""): name
    for name in ("recipient_id", "encrypted_data", "encrypted_symmetric_key", "signature", "is_ephemeral", "priority")
}
"""Go's ``EncryptedData``, and any other spelling without its case and underscores -> the name in ProtoJSON."""


class Unreadable(RouterError):
    """What is stored is not a message that the router could deliver; the text says why."""


class Waiting(Struct, frozen=True):
    """One place where a message waits."""

    id: str
    place: str
    """The path of the document, or the key of the list."""
    queued_at: float
    """µs since 1970; infinite where the list does not say."""
    body: bytes | None = None
    """The envelope as ProtoJSON; ``None`` where it is still to be read from Firestore."""


def in_order(places: Iterable[Sequence[Waiting]]) -> list[Waiting]:
    """All of ``places``, each in its own order, by the time at which they were queued; each id once.

    Of copies the oldest counts. An entry without a time stands before the next one of its list that has a time, and
    behind everything if there is none: only the hot queue in Redis has such entries, and hot mail is newer than cold.
    """
    dated = [waiting for place in places for waiting in _dated(place)]
    found: dict[str, Waiting] = {}
    for waiting in sorted(dated, key=lambda each: each.queued_at):  # stable
        found.setdefault(waiting.id, waiting)
    return list(found.values())


def _dated(place: Sequence[Waiting]) -> Sequence[Waiting]:
    following, dated = math.inf, []
    for waiting in reversed(place):
        following = following if math.isinf(waiting.queued_at) else waiting.queued_at
        dated.append(msgspec.structs.replace(waiting, queued_at=following))
    return dated[::-1]


class _Entry(Struct):
    id: str
    envelope: msgspec.Raw
    queued_at: str = ""


def entry(key: str, value: bytes) -> Waiting:
    """What the string ``value`` of the list ``key`` holds; raises ``Unreadable``."""
    try:
        found = msgspec.json.decode(value, type=_Entry)
        at = (datetime.fromisoformat(found.queued_at) - _EPOCH) / timedelta(microseconds=1) if found.queued_at else None
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError):
        raise Unreadable("the entry is not JSON with an id and an envelope") from None
    return Waiting(found.id, key, math.inf if at is None else at, bytes(found.envelope))


def body(fields: Any) -> bytes:
    """The envelope as ProtoJSON, from the ``fields`` of a Firestore document; raises ``Unreadable``."""
    if "envelope" not in fields or fields["envelope"].WhichOneof("value_type") != "map_value":
        raise Unreadable('the document has no map "envelope"')
    return msgspec.json.encode(dict(_members(fields["envelope"].map_value.fields)))


def _members(fields: Any) -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        known = _FIELDS.get(name.replace("_", "").lower())
        kind = value.WhichOneof("value_type")
        if known and kind not in (None, "null_value"):  # Go stores empty bytes and a missing priority as null
            yield known, getattr(value, kind)


def message(user: str, waiting: Waiting, body_: bytes, now: int, max_bytes: int) -> Message:
    """The message that ``body_`` holds, for ``user``, in whose queue it waits. It is accepted at ``now``.

    Raises ``Unreadable``.
    """
    if not _ID.fullmatch(waiting.id):
        raise Unreadable("its id is not letters, digits and ._~:-, 128 at most")
    try:
        read = envelope.read(body_, max_bytes)
        recipient = urn.parse(user)
    except (InvalidEnvelope, UnicodeEncodeError) as error:
        raise Unreadable(str(error)) from None
    if read.recipient != recipient:
        raise Unreadable("its envelope is for another recipient than its queue")
    summed = checksum(waiting.id, read.recipient, read.canonical)
    # Keyed, so that the id is remembered for a day: as long as a broken-off import may need.
    return Message(waiting.id, read.recipient, read.canonical, read.lane, read.ephemeral, now, True, summed)
