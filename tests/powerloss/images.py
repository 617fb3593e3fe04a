"""What a disk may hold after the power went, out of the journal of what a process wrote (``journal.c``).

The disk keeps what was synced. Of what was not, it keeps any part: each sector of a write by itself, each truncation,
and, until its directory is synced, whether a file that was made or removed is there.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path

from msgspec import Struct

SECTOR = 512
_RECORD = struct.Struct("=IIQQ")


class Kind(IntEnum):
    """As in ``journal.c``."""

    CREATED = 1
    OPENED = 2
    WRITTEN = 3
    TRUNCATED = 4
    SYNCED = 5
    UNLINKED = 6


class Record(Struct, frozen=True):
    """One thing that was done to one file. ``end``: how long the journal was with it, in bytes."""

    kind: Kind
    file: int
    offset: int
    data: bytes
    end: int


def read(journal: bytes) -> list[Record]:
    """All whole records; the last one may have been cut short by the end of its process."""
    found, at = [], 0
    while at + _RECORD.size <= len(journal):
        kind, file, offset, length = _RECORD.unpack_from(journal, at)
        at += _RECORD.size
        if at + length > len(journal):
            break
        data = journal[at : at + length]
        at += length
        found.append(Record(Kind(kind), file, offset, data, at))
    return found


class _File:
    """What the disk surely holds of one file, and what was done since."""

    def __init__(self) -> None:
        self.synced = bytearray()
        self.since: list[Record] = []
        self.entries: list[bool] = [False]
        """Whether it is in its directory: as that was synced, and each change since."""

    def sync(self) -> None:
        for record in self.since:
            change(self.synced, record)
        self.since.clear()


def change(content: bytearray, record: Record) -> None:
    """Do to ``content`` what ``record`` did to its file."""
    if record.kind is Kind.TRUNCATED:
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    content.extend(bytes(max(0, record.offset - len(content))))
    content[record.offset : record.offset + len(record.data)] = record.data


class Disk:
    """The files of one process, from the first record of its journal on."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._files: dict[int, _File] = {}

    def do(self, record: Record) -> None:
        """The next record."""
        if record.kind in (Kind.CREATED, Kind.OPENED):
            self._names[record.file] = record.data.decode()
        file = self._files.setdefault(record.file, _File())
        if record.kind is Kind.CREATED:
            file.synced.clear()
            file.since.clear()
            file.entries.append(True)
        elif record.kind is Kind.UNLINKED:
            file.entries.append(False)
        elif record.kind is Kind.SYNCED:
            self._sync(record.file)
        elif record.kind is not Kind.OPENED:
            file.since.append(record)

    def _sync(self, number: int) -> None:
        self._files[number].sync()
        inside = f"{self._names[number]}/"
        for other, name in self._names.items():
            if name.startswith(inside):
                del self._files[other].entries[:-1]

    def image(self, chance: random.Random) -> dict[str, bytes]:
        """What may be there if the power goes now: the content by name, without directories."""
        keeps = chance.choice((0.0, 0.5, 0.9, 1.0))
        found = {}
        for number, file in self._files.items():
            name = self._names[number]
            if self._is_directory(name) or not chance.choice(file.entries):
                continue
            found[name] = _torn(file, keeps, chance)
        return found

    def _is_directory(self, name: str) -> bool:
        return any(other.startswith(f"{name}/") for other in self._names.values())


def _torn(file: _File, keeps: float, chance: random.Random) -> bytes:
    content = bytearray(file.synced)
    for record in file.since:
        for part in _sectors(record):
            if chance.random() < keeps:
                change(content, part)
    return bytes(content)


def _sectors(record: Record) -> Iterator[Record]:
    """Of a write, what it wrote to each sector; of anything else, itself."""
    if record.kind is not Kind.WRITTEN:
        yield record
        return
    start, end = record.offset, record.offset + len(record.data)
    while start < end:
        until = min(end, start - start % SECTOR + SECTOR)
        yield Record(record.kind, record.file, start, record.data[start - record.offset : until - record.offset], 0)
        start = until


class Image(Struct, frozen=True):
    """What is on the disk, and how long the journal was when the power went."""

    at: int
    files: Mapping[str, bytes]

    def write(self, folder: Path) -> None:
        """Put the files into ``folder``, all of which lay in one."""
        for name, content in self.files.items():
            (folder / Path(name).name).write_bytes(content)


def images(records: Sequence[Record], moments: Sequence[int], chance: random.Random) -> Iterator[Image]:
    """One for each of ``moments``, which rise: after so many records."""
    disk, done = Disk(), 0
    for moment in moments:
        for record in records[done:moment]:
            disk.do(record)
        done = moment
        yield Image(records[moment - 1].end if moment else 0, disk.image(chance))
