"""The embedded ingress topic: a table of messages in the order of acceptance, which one process at a time consumes."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec.structs import replace

from router import logs
from router.backends.embedded.database import Database
from router.backends.embedded.queries import load
from router.backends.embedded.rows import integer, message_of, one
from router.backends.embedded.signals import Signalling
from router.errors import RouterError
from router.messages import Delivery, Message, QueueTotals

LOG = logs.logger(__name__)
SQL = load("ingress")
CHANNEL = "ingress"
LOOK_SECONDS = 5.0
"""How often the consumer looks without a wake-up: a producer may die between its write and the wake-up."""


class EmbeddedIngressProducer:
    """``IngressProducer`` over SQLite: durable when ``publish`` returns."""

    def __init__(self, database: Database, signals: Signalling, check_room: Callable[[], None] = lambda: None) -> None:
        """``check_room`` raises ``NoRoom`` while the router accepts no new messages."""
        self._database = database
        self._signals = signals
        self._check_room = check_room

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        self._check_room()
        await self._database.write(lambda db: enqueue(db, messages))
        self._signals.notify(CHANNEL)
        return [None] * len(messages)

    async def probe(self) -> None:
        await self._database.probe()

    async def backlog(self) -> QueueTotals:
        return QueueTotals(*await self._database.survey(lambda db: one(db, SQL["backlog"], ())))


def enqueue(db: sqlite3.Connection, messages: Sequence[Message]) -> int:
    """Let ``messages`` wait for the consumer, in their order; returns how many."""
    rows = [
        (
            message.id, message.recipient, message.envelope, message.lane, message.ephemeral,
            message.keyed, message.accepted_at, message.checksum, message.trace or None,
        )
        for message in messages
    ]  # fmt: skip
    return db.executemany(SQL["publish"], rows).rowcount


def waiting(db: sqlite3.Connection, recipients: Collection[str]) -> set[str]:
    """Those of ``recipients`` for whom messages wait here."""
    if one(db, SQL["any"], ()) is None:
        return set()
    return {user for user in recipients if one(db, SQL["waits"], (user,))}


class Lock(Protocol):
    """A lock that one process at a time holds; its death, however it dies, frees it."""

    def take(self) -> bool:
        """Take the lock unless another process holds it; returns at once whether this process has it."""
        ...

    async def wait(self) -> None:
        """Return when the lock is free, or this process has it; then ``take`` says which."""
        ...

    def release(self) -> None: ...


class FileLock:
    """``Lock`` on a file: the system releases it with the process, and wakes one that waits."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[None] = loop.create_future()
        # Its own: ``release`` may close the other one before the thread has the lock, which then ends with this one.
        file = os.dup(self._file)

        def take() -> None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            finally:
                os.close(file)
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(tell)

        def tell() -> None:
            if not taken.done():
                taken.set_result(None)

        # A daemon: nothing but the lock ends it, and the process must be able to end before.
        threading.Thread(target=take, name="standby", daemon=True).start()
        await taken

    def release(self) -> None:
        os.close(self._file)


class EmbeddedIngressConsumer:
    """``IngressConsumer`` over SQLite: an async context manager.

    Only the process that holds the lock consumes. A standby process that gets the lock begins with the oldest message.
    """

    def __init__(self, database: Database, signals: Signalling, lock: Callable[[], Lock]) -> None:
        self._database = database
        self._signals = signals
        self._new_lock = lock
        self._cursor = 0
        self._found = 0
        """Messages up to this number may have been delivered by another process before this one."""
        self._returned: list[int] = []

    async def __aenter__(self) -> Self:
        self._lock = self._new_lock()
        self._locked = False
        self._wake = self._signals.wakes(CHANNEL)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    async def receive(self, limit: int) -> list[Delivery]:
        await self._take_lock()
        while True:
            self._wake.clear()
            deliveries = self._returned_messages(limit) or self._next_messages(limit)
            if deliveries:
                return deliveries
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()

    async def _take_lock(self) -> None:
        if self._locked:
            return
        if not self._lock.take():
            LOG.info("another process routes; this one stands by")
            while not self._lock.take():
                await self._lock.wait()
            LOG.info("this process routes now")
        self._locked = True
        (self._found,) = self._database.read(lambda db: one(db, SQL["last"], ()))

    def _next_messages(self, limit: int) -> list[Delivery]:
        rows = self._database.read(lambda db: db.execute(SQL["after"], (self._cursor, limit)).fetchall())
        if rows:
            self._cursor = rows[-1][0]
        return [_delivery(row, self._found) for row in rows]

    def _returned_messages(self, limit: int) -> list[Delivery]:
        numbers = self._returned[:limit]
        rows = self._database.read(lambda db: [one(db, SQL["one"], (number,)) for number in numbers])
        del self._returned[:limit]
        return [_delivery(row, self._found) for row in rows if row is not None]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        numbers = [(delivery.receipt,) for delivery in deliveries]
        await self._database.write_ordered(lambda db: db.executemany(SQL["ack"], numbers).rowcount)

    async def nack(self, deliveries: Sequence[Delivery]) -> None:
        numbers = [(delivery.receipt,) for delivery in deliveries]
        await self._database.write_ordered(lambda db: db.executemany(SQL["nack"], numbers).rowcount)
        for (number,) in numbers:
            bisect.insort(self._returned, int(number))
        self._wake.set()


def _delivery(row: Any, found: int) -> Delivery:
    number, id_, recipient, envelope, lane, ephemeral, keyed, accepted_at, attempts, checksum, trace = row
    message = message_of(id_, recipient, envelope, lane, ephemeral, accepted_at, keyed, checksum)
    if isinstance(trace, str):
        message = replace(message, trace=trace)
    return Delivery(message, number, integer(attempts) + 1, found=number <= found)
