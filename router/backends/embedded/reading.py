"""Reading the hot queue: pages for clients, and what sweepers and people look at."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from msgspec import structs

from router.backends.embedded.presence import is_connected
from router.backends.embedded.routing import HOT as SQL
from router.backends.embedded.rows import ANY_LANE, hot_message, integer, json_list, lane_of, one
from router.backends.rules import ORPHAN_SECONDS, StoreRules, cut_after, implausible_ack, next_cut
from router.clock import MICROSECONDS
from router.messages import HotPage, HotUser, Lane, Pending, Queued, QueueTotals
from router.pages import NO_LANES, Head, fits, share

LONG_AGO = 0
HEAD_COLUMNS = 6
"""Leading columns of ``hot.page`` that are the same in each of its rows; the others are those of ``hot.read``."""


def page_of(
    db: sqlite3.Connection, user: str, limit: int, max_bytes: int, cutoff: int, *, marked: bool = False
) -> HotPage | None:
    """``None`` where the fetch must be marked; most need none, and one look. ``marked``: it is, or was."""
    rows = db.execute(SQL["page"], (marked, cutoff, user, limit + share(limit) + 1))
    first = rows.fetchone()
    if first is None:
        return HotPage([], NO_LANES, [], False, 0)
    fetched, pending_count, cold_empty, cold_version, announced, cut_at = first[:HEAD_COLUMNS]
    if not marked and (cut_at or not fetched):
        return None
    found = (hot_message(user, row[HEAD_COLUMNS:], announced) for row in chain((first,), rows) if row[-1] is not None)
    head = Head(limit, max_bytes).take(found)
    if head.lacks_normal:
        head.begin_normal()
        normal = db.execute(SQL["read"], (user, Lane.NORMAL, cutoff, head.places + 1))
        head.take(hot_message(user, row, announced) for row in normal)
    is_cut = bool(head.more) or not fits(head.messages, limit, max_bytes)
    pending = _pending(db, user) if pending_count else []
    cold_empty = bool(cold_empty and not pending_count)
    online = (is_cut or not cold_empty) and is_connected(db, user)
    if is_cut and online and not marked:
        return None
    return HotPage(head.messages, head.more, pending, cold_empty, cold_version, online, cut_at)


def mark_and_page_of(db: sqlite3.Connection, user: str, limit: int, max_bytes: int, cutoff: int, now: int) -> HotPage:
    """Mark the fetch, and answer it in the same transaction."""
    found = page_of(db, user, limit, max_bytes, cutoff, marked=True)
    assert found is not None, "it is marked"
    fetched, before = one(db, SQL["answered"], (user,)) or (1, 0)
    is_cut = bool(found.more) or not fits(found.messages, limit, max_bytes)
    cut_at = cut_after(before, now, more=is_cut, cold_empty=found.cold_empty, poked=not fetched, online=found.online)
    if cut_at != before or not fetched:
        db.execute(SQL["fetched"], (cut_at, user))
    return structs.replace(found, cut_at=cut_at)


def note_cut(db: sqlite3.Connection, user: str, now: int) -> None:
    _, before = one(db, SQL["answered"], (user,)) or (1, 0)
    if is_connected(db, user):
        db.execute(SQL["cut"], (next_cut(before, now), user))


def _pending(db: sqlite3.Connection, user: str) -> list[Pending]:
    return [
        Pending(id_, lane_of(lane), integer(sequence)) for id_, lane, sequence in db.execute(SQL["pending"], (user,))
    ]


def acked(db: sqlite3.Connection, user: str, ids: Sequence[str]) -> dict[str, bool]:
    """Those of ``ids`` that are acknowledged, and whether nobody owes the deletion of a copy in cold."""
    return {id_: bool(unowed) for id_, unowed in db.execute(SQL["acked"], (json_list(ids), user))}


def inspect(db: sqlite3.Connection, user: str, limit: int) -> list[Queued]:
    head = one(db, SQL["head"], (user,))
    announced = head[4] if head else 0
    return [hot_message(user, row, announced) for row in db.execute(SQL["read"], (user, ANY_LANE, LONG_AGO, limit))]


def hot_users(db: sqlite3.Connection, after: str, limit: int, now: int) -> list[HotUser]:
    return [_hot_user(db, row, now) for row in db.execute(SQL["hot_users"], (after, limit)).fetchall()]


def _hot_user(db: sqlite3.Connection, row: tuple[str, int, int, int, int, int], now: int) -> HotUser:
    user, hot, poked_at, fetched, cut_at, announced = row

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
        cut_at=cut_at,
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


def orphans(db: sqlite3.Connection, rules: StoreRules, now: int, limit: int) -> list[tuple[str, str]]:
    """Acknowledged long enough before ``now``; their records say until when they are remembered, which is later."""
    keyed, plain = (rules.remember_until(0, keyed=keyed) for keyed in (True, False))
    fresh = now - ORPHAN_SECONDS * MICROSECONDS + 1
    return list(db.execute(SQL["orphans"], (keyed, plain, fresh, implausible_ack(now), limit)))


def totals(db: sqlite3.Connection, user: str | None) -> QueueTotals:
    if user is None:
        return QueueTotals(*one(db, SQL["totals"], ()))
    messages, size, oldest_at = one(db, SQL["totals_of"], (user,))
    return QueueTotals(messages, size, int(messages > 0), oldest_at)
