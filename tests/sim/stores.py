"""Databases in memory with the router's own schema, kept from run to run; and what is lost with the power."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from router.backends.embedded import schema, wal
from router.backends.embedded.database import Database
from router.backends.embedded.turns import NoTurns
from router.backends.embedded.worker import Done, InlineWorker, Job

_TABLES = ("ingress", "recipient", "presence", "route", "hot", "cold", "outbox", "dead_letter", "sqlite_sequence")


@dataclass(frozen=True, slots=True)
class Kept(schema.Connections):
    """One connection for all: a group is never left open while something else runs."""

    def close(self) -> None:
        """It is used by the next run."""


class Disk:
    """One database, as the disk of a machine. Commits are written in order; those since the last one that was synced
    may be lost with the power, the last ones first."""

    _free: list[sqlite3.Connection] = []  # noqa: RUF012 - shared on purpose: opening one costs more than a run's use of it

    def __init__(self, chance: random.Random) -> None:
        self.connection = self._free.pop() if self._free else _create()
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")
        self._chance = chance
        self._images: list[sqlite3.Connection] = []
        self._watched = False

    def release(self) -> None:
        """Give the connection to the next run."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._forget()
        self._free.append(self.connection)

    def watch(self) -> bool:
        """From now on, remember what the disk may hold when the power fails; False where it does so already."""
        if self._watched:
            return False
        self._watched = True
        self._images = [self._image()]
        return True

    def committed(self) -> None:
        if self._watched:
            self._images.append(self._image())

    def synced(self) -> None:
        if self._watched:
            *older, last = self._images
            self._images = [last]
            for image in older:
                image.close()

    def _image(self) -> sqlite3.Connection:
        image = sqlite3.connect(":memory:")
        self.connection.backup(image)
        return image

    def lose_power(self) -> int:
        """Go back to the last synced commit, or to one behind it; returns how many commits are lost."""
        kept = self._chance.randrange(len(self._images))
        lost = len(self._images) - 1 - kept
        if lost:
            self._images[kept].backup(self.connection)
        self._watched = False
        self._forget()
        return lost

    def _forget(self) -> None:
        for image in self._images:
            image.close()
        self._images.clear()

    def clear(self) -> None:
        """All is forgotten."""
        for table in _TABLES:
            self.connection.execute(f"DELETE FROM {table}")

    def flip(self, table: str) -> str | None:
        """A bit of a message in ``table`` is another; returns which message, if there is one."""
        found = self.connection.execute(f"SELECT rowid, id, envelope, checksum FROM {table}").fetchall()
        if not found:
            return None
        row, id_, envelope, checksum = self._chance.choice(found)
        if self._chance.random() < 0.1:
            checksum ^= 1 << self._chance.randrange(32)
        else:
            envelope = flipped(envelope, self._chance)
        change = f"UPDATE {table} SET envelope = ?, checksum = ? WHERE rowid = ?"
        self.connection.execute(change, (envelope, checksum, row))
        return str(id_)

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """Look, past all components."""
        return list(self.connection.execute(statement))


def flipped(stored: bytes, chance: random.Random) -> bytes:
    """``stored`` with one bit another."""
    at = chance.randrange(len(stored))
    return stored[:at] + bytes([stored[at] ^ 1 << chance.randrange(8)]) + stored[at + 1 :]


def _create() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
    schema.set_up(connection)
    schema.create(connection)
    return connection


def miscounted(
    counted: Mapping[str, tuple[int, int]],
    hot: Iterable[tuple[str, int]],
    cold: Iterable[tuple[str, int]],
    *,
    cold_too: bool,
) -> list[str]:
    """Where the bytes that an online store has ``counted`` of each user's hot and cold mail are not those of the mail,
    in words. ``hot``, ``cold``: of each message its user and its bytes; ``cold_too``: the latter counts."""
    held = Counter[tuple[str, str]]()
    for tier, messages in (("hot", hot), ("cold", cold)):
        for user, size in messages:
            held[tier, user] += size
    told = Counter(
        {
            (tier, user): size
            for user, (of_hot, of_cold) in counted.items()
            for tier, size in (("hot", of_hot), ("cold", of_cold))
        }
    )
    return [
        f"the store counts {told[tier, user]} bytes of {tier} mail of {user}, and there are {held[tier, user]}"
        for tier, user in sorted(told.keys() | held.keys())
        if told[tier, user] != held[tier, user] and (cold_too or tier == "hot")
    ]


class SimLog(wal.Log):
    """The log of a ``Disk``, which is never long."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def sync(self) -> None:
        self._disk.synced()

    def size(self) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to close."""


class LateWorker(InlineWorker):
    """Runs each job a turn later: between a commit and its sync others write and read, and the power may fail."""

    def submit(self, job: Job, done: Done) -> None:
        self._loop.call_soon(super().submit, job, done)


class SimDatabase(Database):
    """The router's own database over a ``Disk``."""

    def __init__(self, disk: Disk, *, relaxed: bool) -> None:
        connection = disk.connection
        super().__init__(
            Path("/simulated/router.db"),
            LateWorker,
            relaxed=relaxed,
            connect=lambda _: Kept(connection, connection, connection, SimLog(disk)),
            turns=lambda _: NoTurns(),
        )
        self._disk = disk

    def _commit(self) -> None:
        super()._commit()
        self._disk.committed()

    def _log_is_long(self) -> bool:
        return False
