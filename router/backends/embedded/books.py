"""The books of one file: what became of every message. The transaction that moves a message writes them too, in the row
of its recipient, so they are exact at any moment."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import final

from router.backends.embedded.database import Database
from router.backends.embedded.queries import load
from router.backends.embedded.rows import one
from router.books import Books, Unbalanced
from router.dead_reasons import DeadReason
from router.messages import DeadLetter

SQL = load("books")
COLUMNS = ("accepted", "acknowledged", "expired", "dropped", "dead")
NOT_ROUTED = frozenset({DeadReason.UNDECODABLE, DeadReason.ATTEMPTS_EXHAUSTED})
"""Reasons of dead letters of messages that may never have been routed."""


def add(db: sqlite3.Connection, rows: Iterable[Iterable[int]]) -> None:
    """Add ``rows`` of ``COLUMNS``, of recipients that are forgotten, to the books of all."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update(dict(zip(COLUMNS, row, strict=True)))
    if sums:
        db.execute(SQL["add"], {column: sums[column] for column in COLUMNS})


def bury(db: sqlite3.Connection, letters: Iterable[DeadLetter]) -> None:
    """Count those of ``letters`` that routing has not counted."""
    names = [(letter.id, letter.recipient) for letter in letters if letter.reason in NOT_ROUTED]
    if names:
        db.executemany(SQL["bury"], names)


def read(db: sqlite3.Connection) -> tuple[Books, list[Unbalanced]]:
    """The books, in one snapshot: of all together, and of each recipient where they do not balance."""
    accepted, acknowledged, expired, dropped, dead = one(db, SQL["totals"], ())
    (unrouted,) = one(db, SQL["unrouted"], ())
    held: dict[str, int] = dict(db.execute(SQL["queued"]))
    kept: dict[str, int] = dict(db.execute(SQL["kept"]))
    queued = sum(held.values()) + unrouted
    books = Books(accepted + unrouted, acknowledged, queued, expired, dropped, dead)
    users = sorted(user for user in held.keys() | kept.keys() if held.get(user, 0) != kept.get(user, 0))
    return books, [Unbalanced(user, kept.get(user, 0), held.get(user, 0)) for user in users]


@final
class EmbeddedAuditor:
    """``Auditor`` over SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def books(self) -> tuple[Books, list[Unbalanced]]:
        return await self._database.survey(read)
