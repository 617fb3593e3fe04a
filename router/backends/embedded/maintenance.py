"""What sweepers, readiness and operators ask of the online store."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence

from router.backends.embedded import books, trace_contexts
from router.backends.embedded.departures import drop, expire
from router.backends.embedded.presence import nodes_of
from router.backends.embedded.recipients import HOT as SQL
from router.backends.embedded.recipients import Pokes, count_each
from router.backends.embedded.rows import ANY_LANE, hot_message, one
from router.backends.embedded.state import EmbeddedState
from router.backends.recipient_limits import keeps_inbound
from router.backends.routing_rules import (
    ORPHAN_SECONDS,
    UNDER_WAY_SECONDS,
    StoreRules,
    holds_move,
    implausible_ack,
    implausible_move,
)
from router.clock import MICROSECONDS
from router.messages import Forgotten, HotUser, Queued, QueueTotals

LONG_AGO = 0


class EmbeddedMaintenance:
    """``Maintenance`` over SQLite."""

    def __init__(self, state: EmbeddedState) -> None:
        self._state = state
        self._idle_cursor = ""

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        now = self._state.clock.now()
        return self._state.database.read(lambda db: hot_users(db, after, limit, now))

    async def poke(self, users: Sequence[str]) -> None:
        now = self._state.clock.now()

        def mark(db: sqlite3.Connection) -> Pokes:
            db.executemany(SQL["poked"], [(now, user) for user in users])
            return [(node, user) for user, nodes in nodes_of(db, users, now).items() for node in nodes]

        await self._state.publish(await self._state.database.write_ordered(mark))

    async def stop_poking(self, users: Sequence[str]) -> None:
        now = self._state.clock.now()
        await self._state.database.write_ordered(
            lambda db: db.executemany(SQL["stop_poking"], [(user, now) for user in users]).rowcount
        )

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        return self._state.database.read(lambda db: unannounced(db, user, before, limit))

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        marks = [(queued.sequence, queued.message.recipient) for queued in messages]
        await self._state.database.write_ordered(lambda db: db.executemany(SQL["mark_announced"], marks).rowcount)

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now = self._state.keeper.leaving_at()
        await self._state.database.write_ordered(lambda db: expire(db, expired, now, self._state))

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._state.clock.now()
        return self._state.database.read(lambda db: orphans(db, self._state.rules, now, limit))

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        now = self._state.clock.now()
        until = implausible_move(now)
        await self._state.database.write_ordered(
            lambda db: db.executemany(SQL["forget_orphan"], [(id_, user, now, until) for id_ in ids]).rowcount
        )

    async def purge(self, limit: int, at: int) -> int:
        await self._forget_records(at, limit)
        await self._abandon(self._state.rules.abandoned_before(at), limit)
        await self._forget_recipients(at, limit)
        await trace_contexts.forget(self._state.database, at, limit)
        return await self._drop_stale_ephemeral(self._state.clock.now(), limit)

    async def _drop_stale_ephemeral(self, now: int, limit: int) -> int:
        total, cutoff, leaving_at = 0, self._state.rules.ephemeral_cutoff(now), self._state.keeper.leaving_at()
        while self._state.database.read(lambda db: one(db, SQL["stale_ephemeral"], (cutoff, 1))):
            total += await self._state.database.write_ordered(
                lambda db: drop_stale_ephemeral(db, cutoff, limit, leaving_at, self._state)
            )
        return total

    async def _forget_records(self, now: int, limit: int) -> None:
        while await self._forget_some(now, limit):
            pass

    async def _forget_some(self, now: int, limit: int) -> bool:
        records = self._state.database.read(lambda db: db.execute(SQL["forgettable"], (now, limit)).fetchall())
        if records:
            await self._state.database.write_ordered(lambda db: db.executemany(SQL["forget"], records).rowcount)
        return len(records) == limit

    async def _abandon(self, before: int, limit: int) -> None:
        while self._state.database.read(lambda db: one(db, SQL["abandoned"], (before, 1))):
            await self._state.database.write_ordered(lambda db: abandon(db, before, limit))

    async def _forget_recipients(self, now: int, limit: int) -> None:
        """Walk over all users, a page at a time; forget those with no mail queued whose sequences are in the past.
        Those who have just left are remembered as long as a tombstone: a trace says since when they are offline."""
        left = max(0, now - int(self._state.rules.remember_seconds(keyed=False) * MICROSECONDS))
        # ``now`` is the earliest time that it may be; by the clock of this process they may have left after that.
        leaving = {"left": left, "present": self._state.clock.now()}
        times = {"now": now, "moving": implausible_move(now), "inbound": keeps_inbound(now), **leaving}
        page = {**times, "after": self._idle_cursor, "limit": limit}
        found = self._state.database.read(lambda db: db.execute(SQL["idle_recipients"], page).fetchall())
        self._idle_cursor = found[-1][0] if len(found) == limit else ""
        idle: list[dict[str, object]] = [{**times, "user": user} for user, busy in found if not busy]
        if idle:
            await self._state.database.write_ordered(lambda db: forget_recipients(db, idle))

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        return self._state.database.read(lambda db: inspect(db, user, limit))

    async def totals(self, user: str | None) -> QueueTotals:
        if user is None:
            return await self._state.database.survey(lambda db: totals(db, None))
        return self._state.database.read(lambda db: totals(db, user))

    async def forget_user(self, user: str, limit: int) -> Forgotten:
        now = self._state.clock.now()
        records = self._state.database.read(lambda db: db.execute(SQL["records_of"], (user, limit)).fetchall())
        return await self._state.database.write(
            lambda db: forget_user(db, user, records, now, more=len(records) == limit)
        )

    async def lead(self, owner: str) -> bool:
        del owner  # the lock is this process's
        return self._state.lead()

    async def probe(self) -> None:
        await self._state.database.probe()

    async def compare_clocks(self) -> float:
        return 0.0


def forget_recipients(db: sqlite3.Connection, idle: Sequence[dict[str, object]]) -> None:
    """Delete the state of users who are still idle; their books go to those of all."""
    left = [one(db, SQL["forget_recipient"], values) for values in idle]
    books.add(db, [row for row in left if row is not None])


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
    # Everything up to the last message that is due: after a clock stepped back, a message in front of it may have a
    # later time, and the mark, which is a sequence, would skip it.
    values |= {"last": one(db, SQL["last_due"], values)[0] or 0, "limit": limit}
    return [hot_message(user, row, head[4]) for row in db.execute(SQL["unannounced"], values)]


def orphans(db: sqlite3.Connection, rules: StoreRules, now: int, limit: int) -> list[tuple[str, str]]:
    """(user, id) of orphans that were acknowledged ``ORPHAN_SECONDS`` before ``now`` or earlier. The time of the
    acknowledgement follows from the end of the tombstone, which the record has."""
    keyed, plain = (rules.remember_until(0, keyed=keyed) for keyed in (True, False))
    fresh = now - ORPHAN_SECONDS * MICROSECONDS + 1
    return list(db.execute(SQL["orphans"], (keyed, plain, fresh, implausible_ack(now), limit)))


def totals(db: sqlite3.Connection, user: str | None) -> QueueTotals:
    if user is None:
        return QueueTotals(*one(db, SQL["totals"], ()))
    messages, size, oldest_at = one(db, SQL["totals_of"], (user,))
    return QueueTotals(messages, size, int(messages > 0), oldest_at)


def forget_user(
    db: sqlite3.Connection, user: str, records: Sequence[tuple[str, str]], now: int, *, more: bool
) -> Forgotten:
    """Delete these records of ``user``; and, unless there are ``more``, all else."""
    since = now - UNDER_WAY_SECONDS * MICROSECONDS
    lease = one(db, SQL["move_lease"], (user,))
    moving = lease is not None and lease[0] != "" and holds_move(lease[1], now)
    if moving or one(db, SQL["in_use"], {"user": user, "since": since})[0]:
        return Forgotten(in_use=True)
    forgotten = db.executemany(SQL["forget"], records).rowcount if records else 0
    if more:
        return Forgotten(forgotten, more=True)
    connections = db.execute(SQL["forget_connections"], (user,)).rowcount
    db.execute(SQL["forget_traces"], (user,))
    books.add(db, db.execute(SQL["forget_user"], (user,)).fetchall())
    return Forgotten(forgotten, connections)


def abandon(db: sqlite3.Connection, before: int, limit: int) -> None:
    """Forget pending cold writes with lower sequences than ``before``, which nobody is going to do any more."""
    changes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for user, id_, size in db.execute(SQL["abandoned"], (before, limit)).fetchall():
        db.execute(SQL["forget"], (id_, user))
        changes[user].subtract({"cold": 1, "cold_bytes": size, "pending": 1})
        changes[user]["expired"] += 1
    count_each(db, changes)


def drop_stale_ephemeral(db: sqlite3.Connection, cutoff: int, limit: int, now: int, state: EmbeddedState) -> int:
    found = db.execute(SQL["stale_ephemeral"], (cutoff, limit)).fetchall()
    drop(db, found, now, state)
    return len(found)
