"""Names of documents. What users and ids are called is none of Firestore's business, so it is escaped, reversibly."""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import unquote
from zlib import crc32

_SPECIAL = re.compile(r"[%/]|^\.(?=\.?$)|(?<=^\.)\.$|^_(?=_)")
_EMPTY = "%"
"""No escape begins so and ends there."""

_LONGEST = 1460
"""Bytes: Firestore takes 1,500, and ``record_id`` needs some."""

SHARDS = 8
"""Number of ranges over which each index by time is spread: one range takes 500 writes a second."""
_TIME_BITS = 56


def document_id(name: str) -> str:
    """A document id for ``name``: no ``/``, neither ``.`` nor ``..``, and not reserved, as ``__x__`` is."""
    if not name:
        return _EMPTY
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", name)


def possible(name: str) -> bool:
    """Whether a document may be called ``name``; no message has an id that is impossible."""
    try:
        return len(document_id(name).encode()) <= _LONGEST
    except UnicodeEncodeError:
        return False


def name_of(document: str) -> str:
    """What ``document_id`` made ``document`` from."""
    return "" if document == _EMPTY else unquote(document, errors="strict")


def record_id(user: str, id_: str) -> str:
    """A document id for what is recorded of one message id of ``user``.

    A hash of both stands first: ids rise with time, and these documents are not to rise with them.
    """
    digest = blake2b(f"{user}\0{id_}".encode(), digest_size=16).hexdigest()  # no user has a NUL
    return f"{digest}-{document_id(id_)}"


def earlier_record_id(id_: str) -> str:
    """What an earlier version, in which an id belonged to one user among all, called it."""
    return f"{crc32(id_.encode()):08x}-{document_id(id_)}"


def recorded(document: str) -> str:
    """The message id that ``record_id`` or ``earlier_record_id`` made ``document`` from."""
    return name_of(document.partition("-")[2])


def sharded(user: str, time: int) -> int:
    """A number that rises with ``time`` (µs since 1970, not negative) within the shard of ``user``."""
    return in_shard(crc32(user.encode()) % SHARDS, time)


def in_shard(shard: int, time: int) -> int:
    """The number of ``time`` in one of the ``SHARDS``."""
    return shard << _TIME_BITS | time


def time_of(number: int) -> int:
    """The time that ``sharded`` was given."""
    return number & (1 << _TIME_BITS) - 1


def place_number(lane: int, sequence: int) -> int:
    """One number that is ordered as (lane, sequence) is, so that the automatic index serves."""
    return lane << 62 | sequence


FIRST = -1
"""Before all places."""
BEFORE_NORMAL = place_number(1, 0) - 1
"""Behind those of the express lane, and before those of the normal one."""


def place_of(number: int) -> tuple[int, int]:
    """The (lane, sequence) of ``place_number``."""
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
        """The user whose document is at ``path``, or above it."""
        return name_of(path[len(self.documents) :].split("/")[2])
