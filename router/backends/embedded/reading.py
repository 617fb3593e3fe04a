"""Reading the hot queue: pages for clients, and what sweepers and people look at."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from router.backends.embedded.routing import HOT as SQL
from router.backends.embedded.rows import hot_message, one, page
from router.backends.rules import StoreRules
from router.messages import HotPage, HotUser, Lane, Pending, Queued, QueueTotals

LONG_AGO = 0


def read_page(db: sqlite3.Connection, user: str, head: Any, limit: int, max_bytes: int, cutoff: int) -> HotPage:
    """``head`` is the user's row of ``hot.head``, or ``None``."""
    if head is None:
        return HotPage([], False, [], False, 0)
    _, pending_count, cold_empty, cold_version, announced = head
    rows = db.execute(SQL["read"], (user, cutoff, limit + 1))
    messages, more = page((hot_message(user, row, announced) for row in rows), limit, max_bytes)
    pending = _pending(db, user) if pending_count else []
    return HotPage(messages, more, pending, bool(cold_empty and not pending_count), cold_version)


def _pending(db: sqlite3.Connection, user: str) -> list[Pending]:
    return [Pending(id_, Lane(lane), sequence) for id_, lane, sequence in db.execute(SQL["pending"], (user,))]


def acked(db: sqlite3.Connection, user: str, ids: Sequence[str]) -> set[str]:
    return {id_ for (id_,) in db.execute(SQL["acked"], (json.dumps(list(ids)), user))}


def inspect(db: sqlite3.Connection, user: str, limit: int) -> list[Queued]:
    head = one(db, SQL["head"], (user,))
    announced = head[4] if head else 0
    return [hot_message(user, row, announced) for row in db.execute(SQL["read"], (user, LONG_AGO, limit))]


def hot_users(db: sqlite3.Connection, after: str, limit: int, now: int) -> list[HotUser]:
    return [_hot_user(db, row, now) for row in db.execute(SQL["hot_users"], (after, limit)).fetchall()]


def _hot_user(db: sqlite3.Connection, row: tuple[str, int, int, int, int], now: int) -> HotUser:
    user, hot, poked_at, fetched, announced = row

    def oldest(sequence: int, *, ephemeral: bool) -> int:
        values: dict[str, object] = {"user": user, "sequence": sequence, "ephemeral": ephemeral}
        return int(one(db, SQL["oldest"], values)[0] or 0)

    return HotUser(
        user=user,
        live=one(db, SQL["live"], (user, now))[0],
        hot=hot,
        oldest_at=oldest(0, ephemeral=True) if hot else 0,
        unannounced_at=oldest(announced, ephemeral=False) if hot else 0,
        poked_at=poked_at,
        fetched=bool(fetched),
    )


def unannounced(db: sqlite3.Connection, user: str, before: int, limit: int) -> list[Queued]:
    head = one(db, SQL["head"], (user,))
    if head is None:
        return []
    values: dict[str, object] = {"user": user, "announced": head[4], "before": before}
    # All up to the last that is due: where the clock stepped back, one before it may bear a later time, and the mark
    # that is kept, a sequence, would pass it over.
    values |= {"last": one(db, SQL["last_due"], values)[0] or 0, "limit": limit}
    return [hot_message(user, row, head[4]) for row in db.execute(SQL["unannounced"], values)]


def orphans(db: sqlite3.Connection, rules: StoreRules, before: int, limit: int) -> list[tuple[str, str]]:
    """Acknowledged before ``before``; their records say until when they are remembered, which is later."""
    keyed, plain = (rules.remember_until(0, keyed=keyed) for keyed in (True, False))
    return list(db.execute(SQL["orphans"], (before, keyed, plain, limit)))


def totals(db: sqlite3.Connection, user: str | None) -> QueueTotals:
    if user is None:
        return QueueTotals(*one(db, SQL["totals"], ()))
    messages, size, oldest_at = one(db, SQL["totals_of"], (user,))
    return QueueTotals(messages, size, int(messages > 0), oldest_at)
