"""The embedded outbox of push commands, and the embedded dead-letter topic: two tables, shown by the CLI."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import NamedTuple

from router import envelope, logs
from router.backends.base import OutboxEntry
from router.backends.embedded import books
from router.backends.embedded.database import Database
from router.backends.embedded.queries import load
from router.clock import MICROSECONDS, Clock
from router.config import Embedded
from router.interfaces import LetterPage, Receipt
from router.messages import DeadLetter, Message
from router.metrics import Drop, Metrics
from router.timekeeping import Timekeeper

LOG = logs.logger(__name__)
SQL = load("push")
PAGE = 200
"""Dead letters in one page."""
KEEP_SECONDS = 7 * 86_400
"""A command that no notification service has taken is dropped after a week."""
EXPIRED_MORE = 100
"""Each batch of new rows may delete as many old ones and this many more."""


def announce(db: sqlite3.Connection, messages: Sequence[Message], now: int) -> None:
    """Put the commands of ``messages``, which this file keeps, into the outbox."""
    db.executemany(SQL["announce"], [(message.id, message.recipient, now) for message in messages])


def expire_commands(db: sqlite3.Connection, most: int, before: int) -> int:
    """Delete up to ``most`` of the oldest commands, which were published before ``before`` (µs); returns how many."""
    return db.execute(SQL["expire_outbox"], (most, before)).rowcount


def withdraw(db: sqlite3.Connection, doomed: Iterable[tuple[str, str]]) -> int:
    """Remove the commands of the messages ``doomed`` (recipient, id), which are acknowledged or gone; returns how
    many."""
    return db.executemany(SQL["withdraw"], doomed).rowcount


class EmbeddedOutbox:
    """``PushNotifier`` over SQLite, and the read end that a notification service uses.

    If this file holds the mail of a command at least as long as the command, the command has no copy of the envelope.
    """

    def __init__(
        self, database: Database, clock: Clock, timekeeper: Timekeeper, *, cold_here: bool = True, direct: bool = False
    ) -> None:
        """``cold_here``: this file holds the cold queue too, so mail stays in it until it is acknowledged or gone.
        ``direct``: it holds all that a message passes, so mail that is not in it is gone."""
        self._database = database
        self._clock = clock
        self._timekeeper = timekeeper
        self._cold_here = cold_here
        self._statement = SQL["publish_held" if direct else "publish"]

    async def publish(self, messages: Sequence[Message]) -> None:
        now = self._clock.now()
        rows: list[dict[str, object]] = [
            {
                "id": message.id,
                "recipient": message.recipient,
                "command": envelope.push_command(message.recipient, message.envelope),
                "cold_here": self._cold_here,
                "at": now,
            }
            for message in messages
        ]

        before = self._timekeeper.deleting_at() - KEEP_SECONDS * MICROSECONDS

        def insert(db: sqlite3.Connection) -> int:
            # Delete more than come, or the table would never shrink.
            expire_commands(db, len(rows) + EXPIRED_MORE, before)
            return db.executemany(self._statement, rows).rowcount

        await self._database.write_ordered(insert)

    async def list(self, after: int, limit: int) -> list[OutboxEntry]:
        """The commands behind number ``after``, in order, without those of damaged mail, which a fetch removes."""
        rows = self._database.read(lambda db: db.execute(SQL["outbox"], (after, limit)).fetchall())
        return [
            OutboxEntry(number, id_, recipient, command or envelope.push_command(recipient, sealed), at)
            for number, id_, recipient, command, at, sealed in rows
        ]

    async def remove(self, numbers: Sequence[int]) -> None:
        """Remove these, which the notification service has taken."""
        taken = [(number,) for number in numbers]
        await self._database.write(lambda db: db.executemany(SQL["remove"], taken).rowcount)


class Buried(NamedTuple):
    """How many old dead letters new ones displaced."""

    expired: int = 0
    dropped: int = 0


class EmbeddedDeadLetters:
    """``DeadLetters`` over SQLite, and their read end, ``DeadLetterQueue``.

    Dead letters do not fill the disk. Those older than ``embedded.dead_letter_days`` are dropped. Beyond
    ``embedded.dead_letter_bytes``, the oldest letters of the recipient with the most bytes are dropped, so that a flood
    to one recipient pushes out no other's.
    """

    def __init__(self, database: Database, timekeeper: Timekeeper, limits: Embedded, metrics: Metrics) -> None:
        self._database = database
        self._timekeeper = timekeeper
        self._keep = int(limits.dead_letter_days * 86_400 * MICROSECONDS)
        self._most_bytes = limits.dead_letter_bytes
        self._metrics = metrics

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        def bury(db: sqlite3.Connection) -> Buried:
            books.bury(db, letters)
            return self.bury(db, letters)

        self.tell(await self._database.write_ordered(bury))

    def bury(self, db: sqlite3.Connection, letters: Sequence[DeadLetter]) -> Buried:
        """Keep ``letters``, and drop old ones. The caller passes the result to ``tell``."""
        rows = [
            (
                letter.id,
                letter.recipient,
                letter.reason,
                letter.detail,
                letter.attempts,
                letter.at,
                letter.body,
            )
            for letter in letters
        ]
        before = self._timekeeper.deleting_at() - self._keep
        expired = db.execute(SQL["expire_letters"], (before,)).rowcount
        db.executemany(SQL["bury"], rows)
        # Drop more than come, or a lowered cap would never be reached.
        return Buried(expired, self._drop(db, len(rows) + EXPIRED_MORE))

    def tell(self, buried: Buried) -> None:
        """Count and log what ``bury`` dropped, once its transaction is committed."""
        self._tell(buried.expired, "letter-age", "embedded.dead_letter_days")
        self._tell(buried.dropped, "letter-bytes", "embedded.dead_letter_bytes")

    def _drop(self, db: sqlite3.Connection, most: int) -> int:
        """Drop up to ``most`` letters that exceed the cap; returns how many."""
        for dropped in range(most):
            (taken,) = db.execute(SQL["letters_take"]).fetchone()
            if not self._most_bytes or taken <= self._most_bytes:
                return dropped
            db.execute(SQL["drop_letter"])
        return most

    def _tell(self, count: int, reason: Drop, limit: str) -> None:
        if count:
            self._metrics.dropped(reason, count)
            LOG.warning("the oldest dead letters were dropped: their mail is gone for good", dropped=count, limit=limit)

    async def list(self, after: int, limit: int) -> list[tuple[int, DeadLetter]]:
        """The letters behind number ``after``, in order, each with its number."""
        rows = self._database.read(lambda db: db.execute(SQL["letters"], (after, limit)).fetchall())
        return [
            (number, DeadLetter(id_, recipient, reason, detail, body, attempts, at))
            for number, id_, recipient, reason, detail, attempts, at, body in rows
        ]

    async def pages(self) -> AsyncGenerator[LetterPage]:
        (last,) = self._database.read(lambda db: db.execute(SQL["last_letter"]).fetchone())
        after = 0
        while after < last and (found := await self.list(after, PAGE)):
            after = found[-1][0]
            yield [(number, letter) for number, letter in found if number <= last]

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        numbers = [(number,) for number in receipts]
        await self._database.write(lambda db: db.executemany(SQL["remove_letter"], numbers).rowcount)

    async def count(self) -> int:
        (count,) = await self._database.survey(lambda db: db.execute(SQL["count_letters"]).fetchone())
        return int(count)
