"""The embedded cold queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import structs

from router.backends.embedded.database import Database
from router.backends.embedded.push import withdraw
from router.backends.embedded.queries import load
from router.backends.embedded.rows import cold_message, integer, one
from router.backends.routing_rules import each_once
from router.checksum import NEVER
from router.interfaces import BEFORE_ALL, Place
from router.messages import ColdPage, Lane, Queued, QueueTotals
from router.pages import Head, Page, share

SQL = load("cold")
FIRST_NORMAL: Place = (Lane.NORMAL, -1)


class EmbeddedColdQueue:
    """``ColdQueue`` over SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looked_at = 0
        """Cursor (row) of the scan for expired mail, which wraps around. An index by age would cost each write."""

    async def put(self, messages: Sequence[Queued]) -> list[Queued]:
        await self._database.write_ordered(lambda db: put(db, messages))
        return []

    async def read(self, user: str, limit: int, max_bytes: int, after: Place | None = None) -> ColdPage:
        def rows(db: sqlite3.Connection, behind: Place, most: int) -> Iterator[Queued]:
            return (cold_message(user, row) for row in db.execute(SQL["read"], (user, *behind, most)))

        def head(db: sqlite3.Connection) -> ColdPage:
            head = Head(limit, max_bytes).take(rows(db, BEFORE_ALL, limit + share(limit) + 1))
            if head.lacks_normal:
                head.begin_normal()
                head.take(rows(db, FIRST_NORMAL, head.places + 1))
            return ColdPage(head.messages, head.more)

        def behind(db: sqlite3.Connection, place: Place) -> ColdPage:
            page = Page(limit, max_bytes).take(rows(db, place, limit + 1))
            return ColdPage(page.messages, page.more)

        return self._database.read(lambda db: head(db) if after is None else behind(db, after))

    async def find(self, user: str, ids: Sequence[str], *, envelopes: bool = False) -> list[Queued]:
        sought, statement = each_once(ids), SQL["find" if envelopes else "find_bare"]
        # One statement for each id: ``json_each`` would cut an id off at a NUL.
        rows = self._database.read(lambda db: [one(db, statement, (id_, user)) for id_ in sought])
        return [cold_message(user, row) if envelopes else _bare(row) for row in rows if row is not None]

    async def repair(self, user: str, messages: Sequence[Queued]) -> None:
        rows = [(one.message.envelope, one.message.checksum, one.message.id, user) for one in messages]
        await self._database.write_ordered(lambda db: db.executemany(SQL["repair"], rows).rowcount)

    async def delete(self, user: str, ids: Sequence[str]) -> None:
        await self._delete([(user, id_) for id_ in ids])

    async def _delete(self, doomed: Sequence[tuple[str, str]]) -> None:
        def remove(db: sqlite3.Connection) -> int:
            withdraw(db, doomed)
            return db.executemany(SQL["delete"], doomed).rowcount

        await self._database.write_ordered(remove)

    async def expired(self, before: int, limit: int) -> list[Queued]:
        def select(db: sqlite3.Connection) -> list[Any]:
            after = self._looked_at
            count, last = one(db, SQL["rows"], (after, limit))
            self._looked_at = last if count == limit else 0
            return db.execute(SQL["expired"], (after, last, before)).fetchall()

        return [_bare(row) for row in self._database.read(select)]

    async def expire(self, expired: Sequence[Queued]) -> list[Queued]:
        await self._delete([(queued.message.recipient, queued.message.id) for queued in expired])
        return list(expired)

    async def unreported(self, before: int, limit: int) -> list[Queued]:
        rows = self._database.read(lambda db: db.execute(SQL["unreported"], (before, limit)).fetchall())
        return [_bare(row) for row in rows]

    async def update_places(self, messages: Sequence[Queued]) -> None:
        rows = [
            (queued.unreported, queued.sequence, queued.message.id, queued.message.recipient) for queued in messages
        ]
        await self._database.write_ordered(lambda db: db.executemany(SQL["update_places"], rows).rowcount)

    async def oldest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        return self._first("oldest", limit)

    async def longest(self, limit: int) -> list[tuple[str, QueueTotals]]:
        return self._first("longest", limit)

    def _first(self, query: str, limit: int) -> list[tuple[str, QueueTotals]]:
        rows = self._database.read(lambda db: db.execute(SQL[query], (limit,)).fetchall())
        return [(user, QueueTotals(count, size, 1, oldest_at)) for user, count, size, oldest_at in rows]

    async def totals(self, user: str | None) -> QueueTotals:
        if user is None:
            return QueueTotals(*await self._database.survey(lambda db: one(db, SQL["totals"], ())))
        count, size, oldest_at = self._database.read(lambda db: one(db, SQL["totals_of"], (user,)))
        return QueueTotals(count, size, int(count > 0), oldest_at)

    async def probe(self) -> None:
        self._database.read(lambda db: one(db, "SELECT 1", ()))


def put(db: sqlite3.Connection, messages: Sequence[Queued]) -> int:
    """Write ``messages``; returns how many rows that changed."""
    rows = [
        (
            queued.message.recipient, queued.message.lane, queued.sequence, queued.message.id,
            queued.queued_at, queued.message.accepted_at, queued.message.keyed, queued.attempts,
            queued.message.envelope, queued.message.checksum, queued.unreported,
        )
        for queued in messages
    ]  # fmt: skip
    return db.executemany(SQL["put"], rows).rowcount


def _bare(row: Any) -> Queued:
    id_, user, lane, sequence, queued_at, accepted_at, keyed, tries, size = row
    found = cold_message(user, (id_, lane, sequence, queued_at, accepted_at, keyed, tries, NEVER, b""))
    return structs.replace(found, left_out=integer(size))
