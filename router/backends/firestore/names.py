"""Names of documents. User names and message ids may hold characters that Firestore forbids, so they are escaped,
reversibly."""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import unquote
from zlib import crc32

_SPECIAL = re.compile(r"[%/]|^\.(?=\.?$)|(?<=^\.)\.$|^_(?=_)")
_EMPTY = "%"
"""Stands for the empty name; no escaped name is a single "%"."""

_LONGEST = 1460
"""Longest document id, in bytes: Firestore takes 1,500, of which ``record_id`` needs some."""

SHARDS = 8
"""Ranges over which each index by time is spread; one range takes 500 writes a second."""
_TIME_BITS = 56


def document_id(name: str) -> str:
    """A document id for ``name``: without ``/``, not ``.`` or ``..``, and not reserved like ``__x__``."""
    if not name:
        return _EMPTY
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name)


def possible(name: str) -> bool:
    """Whether a document may be called ``name``. No message has an id for which this is false."""
    try:
        return len(document_id(name).encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def name_of(document: str) -> str:
    """The name from which ``document_id`` made ``document``."""
    return "" if document == _EMPTY else unquote(document, errors="strict")


def record_id(user: str, id_: str) -> str:
    """The document id of the record of one message id of ``user``.

    It begins with a hash of both: message ids rise with time, and document ids that rise would all be written to one
    range.
    """
    digest = blake2b(f"{user}\0{id_}".encode(), digest_size=16).hexdigest()  # no user has a NUL
    return f"{digest}-{document_id(id_)}"


def earlier_record_id(id_: str) -> str:
    """The document id that an earlier version gave the record, in which no two users had the same message id."""
    return f"{crc32(id_.encode()):08x}-{document_id(id_)}"


def recorded(document: str) -> str:
    """The message id from which ``record_id`` or ``earlier_record_id`` made ``document``."""
    return name_of(document.partition("-")[2])


def sharded(user: str, time: int) -> int:
    """A number for an index by time: the shard of ``user``, then ``time`` (µs since 1970, not negative)."""
    return in_shard(crc32(user.encode()) % SHARDS, time)


def in_shard(shard: int, time: int) -> int:
    """The number of ``time`` in ``shard``, one of ``SHARDS``."""
    return shard << _TIME_BITS | time


def time_of(number: int) -> int:
    """The time from which ``sharded`` made ``number``."""
    return number & (1 << _TIME_BITS) - 1


def place_number(lane: int, sequence: int) -> int:
    """One number that sorts like (lane, sequence), so that Firestore's automatic index is enough."""
    return lane << 62 | sequence


FIRST = -1
"""In front of all places."""
BEFORE_NORMAL = place_number(1, 0) - 1
"""Between the places of the express lane and those of the normal lane."""


def place_of(number: int) -> tuple[int, int]:
    """The (lane, sequence) from which ``place_number`` made ``number``."""
    return number >> 62, number & (1 << 62) - 1


class Layout:
    """The paths of one database."""

    def __init__(self, project: str, database: str, collection: str) -> None:
        """``collection``: the top-level one; each of its documents is a user."""
        self.database = f"projects/{project}/databases/{database}"
        self.documents = f"{self.database}/documents"
        self.collection = collection

    def user(self, user: str) -> str:
        """The document of one user."""
        return f"{self.documents}/{self.collection}/{document_id(user)}"

    def user_of(self, path: str) -> str:
        """The user whose document is at ``path`` or above it."""
        return name_of(path[len(self.documents) :].split("/")[2])
