"""The log beside the file: syncs it, and finds commits that SQLite passes over where it is damaged.

SQLite reads its log up to the first frame whose checksum does not match. That is right if a crash cut the last commit
short. But if more commits follow, a bit has flipped or a page was lost, and SQLite drops them without an error.
The format: https://www.sqlite.org/fileformat2.html#walformat
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_HEADER = 32
_FRAME = struct.Struct(">II8s")
"""Header of a frame: page number, size of the file if a commit ends here (else 0), salt. A checksum of 8 bytes and the
page follow."""
_FRAME_HEADER = 24
_WORDS = {0x377F0682: "<", 0x377F0683: ">"}
"""By the first word of the header: the byte order of its checksum."""
_VALID_FRAMES = struct.Struct("=16xI")
"""Number of valid frames, in the header of the log's index (https://www.sqlite.org/walformat.html), in the machine's
byte order."""

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class Log:
    """The log of the database ``path``, which is open and so has one. Raises ``OSError``."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path.with_name(f"{path.name}-wal"), os.O_RDONLY | os.O_CLOEXEC)

    def sync(self) -> None:
        """Return when all that is in the log is on disk."""
        _sync(self._descriptor)

    def size(self) -> int:
        """In bytes; 0 where it has been emptied."""
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)


def lost_commits(connection: sqlite3.Connection, path: Path, page_size: int) -> int:
    """How many commits in the log of the database ``path`` SQLite does not see. ``connection`` must be able to write.

    Raises ``sqlite3.Error``.
    """
    connection.execute("BEGIN IMMEDIATE")  # nobody else writes meanwhile
    try:
        with path.with_name(f"{path.name}-shm").open("rb") as index:
            head = index.read(_VALID_FRAMES.size)
        if len(head) < _VALID_FRAMES.size:
            return 0
        (valid,) = _VALID_FRAMES.unpack(head)
        with path.with_name(f"{path.name}-wal").open("rb") as log:
            return sum(number > valid for number in _commits(log, page_size))
    except FileNotFoundError:
        return 0
    finally:
        connection.execute("ROLLBACK")


def _commits(log: BinaryIO, page_size: int) -> Iterator[int]:
    """The numbers of those frames of the current log that end a commit; older frames may stand behind it."""
    header = log.read(_HEADER)
    frames = list(_frames(log, page_size))
    if frames:
        # If the header is damaged, take the salt of the first frame, which was written with it.
        salt = header[16:24] if _is_whole(header) else frames[0][1]
        yield from (number for number, (size, own) in enumerate(frames, 1) if size and own == salt)


def _frames(log: BinaryIO, page_size: int) -> Iterator[tuple[int, bytes]]:
    """(size of the file if a commit ends here, else 0; salt) of each frame. Ends early if another process empties the
    log meanwhile; its content is in the file then."""
    for _ in range((os.fstat(log.fileno()).st_size - _HEADER) // (_FRAME_HEADER + page_size)):
        head = log.read(_FRAME_HEADER)
        if len(head) < _FRAME_HEADER:
            return
        _, size, salt = _FRAME.unpack_from(head)
        yield size, salt
        log.seek(page_size, os.SEEK_CUR)


def _is_whole(header: bytes) -> bool:
    """Whether the checksum of the log's header matches."""
    words = _WORDS.get(int.from_bytes(header[:4], "big"))
    if words is None:
        return False
    one = two = 0
    numbers = struct.unpack(f"{words}6I", header[:24])
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        one = (one + first + two) & 0xFFFF_FFFF
        two = (two + second + one) & 0xFFFF_FFFF
    return (one, two) == struct.unpack(">2I", header[24:])
