"""The embedded online store: presence and hot queue in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from router.backends.embedded import moving, reading, routing
from router.backends.embedded.database import Database
from router.backends.embedded.presence import EmbeddedPresence, nodes_of
from router.backends.embedded.routing import HOT as SQL
from router.backends.embedded.rows import json_list, one
from router.backends.embedded.signals import Nodes
from router.backends.rules import StoreRules, implausible_move, keeps_inbound
from router.clock import Clock
from router.interfaces import PokeBus
from router.messages import Delivery, HotPage, HotUser, Move, MoveRefused, Queued, QueueTotals, Routed, Settled
from router.timekeeping import Timekeeper


class EmbeddedOnlineStore(EmbeddedPresence):
    """``OnlineStore`` over SQLite. Only what a client was promised, its acknowledgement, waits for the disk."""

    def __init__(
        self,
        database: Database,
        pokes: PokeBus,
        rules: StoreRules,
        clock: Clock,
        keeper: Timekeeper,
        nodes: Nodes | None = None,
    ) -> None:
        super().__init__(database, rules, clock, nodes)
        self._pokes = pokes
        self._keeper = keeper
        self._idle_cursor = ""

    async def probe(self) -> None:
        await self._database.probe()

    async def compare_clocks(self) -> float:
        return 0.0

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._clock.now()
        routed, pokes = await self._database.write_ordered(lambda db: routing.route(db, deliveries, now, self._rules))
        await self._publish(pokes)
        return routed

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now = self._clock.now()
        settled, pokes = await self._database.write_ordered(lambda db: moving.settle(db, messages, now, self._rules))
        await self._publish(pokes)
        return settled

    async def _publish(self, pokes: routing.Pokes) -> None:
        if pokes:
            await self._pokes.publish(pokes)

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        now = self._clock.now()
        cutoff = self._rules.ephemeral_cutoff(now)
        found = self._database.read(lambda db: reading.page_of(db, user, limit, max_bytes, cutoff, marked=again))
        if found is not None:
            return found
        # Marked before the read: what this read misses comes after the mark, and is poked.
        return await self._database.write_ordered(
            lambda db: reading.mark_and_page_of(db, user, limit, max_bytes, cutoff, now)
        )

    async def note_end(self, user: str, cut_at: int) -> None:
        await self._database.write_ordered(lambda db: db.execute(SQL["ended"], (user, cut_at)).rowcount)

    async def note_cut(self, user: str) -> None:
        now = self._clock.now()
        await self._database.write_ordered(lambda db: reading.note_cut(db, user, now))

    async def acked(self, user: str, ids: Sequence[str]) -> set[str]:
        found = self._database.read(lambda db: reading.acked(db, user, ids))
        if unowed := [id_ for id_, is_unowed in found.items() if is_unowed]:
            names = json_list(unowed), user
            await self._database.write_ordered(lambda db: db.execute(SQL["found"], names).rowcount)
        return set(found)

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        now = self._keeper.leaving_at()
        return await self._database.write(lambda db: moving.ack(db, user, ids, now, self._rules))

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        now = self._keeper.leaving_at()
        return await self._database.write(lambda db: moving.discard(db, user, damaged, now, self._rules))

    async def note_cold_empty(self, user: str, version: int) -> None:
        await self._database.write_ordered(lambda db: db.execute(SQL["cold_is_empty"], (user, version)).rowcount)

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now, leaving_at = self._clock.now(), self._keeper.leaving_at()
        return await self._database.write_ordered(
            lambda db: moving.begin_move(
                db, user, owner, limit, max_bytes, now, leaving_at, self._rules, online_too=online_too
            )
        )

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # each message's own state says whether it still moves
        return await self._database.write_ordered(lambda db: moving.end_move(db, user, moved))

    async def release_move(self, user: str, owner: str) -> None:
        await self._database.write_ordered(lambda db: db.execute(SQL["release_move_lease"], (user, owner)).rowcount)

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        now = self._clock.now()
        return self._database.read(lambda db: reading.hot_users(db, after, limit, now))

    async def poke(self, users: Sequence[str]) -> None:
        now = self._clock.now()

        def mark(db: sqlite3.Connection) -> routing.Pokes:
            db.executemany(SQL["poked"], [(now, user) for user in users])
            return [(node, user) for user, nodes in nodes_of(db, users, now).items() for node in nodes]

        await self._publish(await self._database.write_ordered(mark))

    async def hush(self, users: Sequence[str]) -> None:
        now = self._clock.now()
        await self._database.write_ordered(
            lambda db: db.executemany(SQL["hush"], [(user, now) for user in users]).rowcount
        )

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        return self._database.read(lambda db: reading.unannounced(db, user, before, limit))

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        marks = [(queued.sequence, queued.message.recipient) for queued in messages]
        await self._database.write_ordered(lambda db: db.executemany(SQL["mark_announced"], marks).rowcount)

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now = self._keeper.leaving_at()
        await self._database.write_ordered(lambda db: moving.forget_cold(db, expired, now, self._rules))

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._clock.now()
        return self._database.read(lambda db: reading.orphans(db, self._rules, now, limit))

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        now = self._clock.now()
        until = implausible_move(now)
        await self._database.write_ordered(
            lambda db: db.executemany(SQL["forget_orphan"], [(id_, user, now, until) for id_ in ids]).rowcount
        )

    async def purge(self, limit: int, at: int) -> int:
        await self._forget_records(at, limit)
        await self._abandon(self._rules.abandoned_before(at), limit)
        await self._forget_recipients(at, limit)
        return await self._drop_stale_ephemeral(self._clock.now(), limit)

    async def _drop_stale_ephemeral(self, now: int, limit: int) -> int:
        total, cutoff, leaving_at = 0, self._rules.ephemeral_cutoff(now), self._keeper.leaving_at()
        while self._database.read(lambda db: one(db, SQL["stale_ephemeral"], (cutoff, 1))):
            total += await self._database.write_ordered(
                lambda db: moving.drop_stale_ephemeral(db, cutoff, limit, leaving_at, self._rules)
            )
        return total

    async def _forget_records(self, now: int, limit: int) -> None:
        while await self._forget_some(now, limit):
            pass

    async def _forget_some(self, now: int, limit: int) -> bool:
        records = self._database.read(lambda db: db.execute(SQL["forgettable"], (now, limit)).fetchall())
        if records:
            await self._database.write_ordered(lambda db: db.executemany(SQL["forget"], records).rowcount)
        return len(records) == limit

    async def _abandon(self, before: int, limit: int) -> None:
        while self._database.read(lambda db: one(db, SQL["abandoned"], (before, 1))):
            await self._database.write_ordered(lambda db: moving.abandon(db, before, limit))

    async def _forget_recipients(self, now: int, limit: int) -> None:
        """Walk over all users, a page a time; forget those with nothing queued whose sequences are past."""
        times = {"now": now, "moving": implausible_move(now), "inbound": keeps_inbound(now)}
        page = {**times, "after": self._idle_cursor, "limit": limit}
        found = self._database.read(lambda db: db.execute(SQL["idle_recipients"], page).fetchall())
        self._idle_cursor = found[-1][0] if len(found) == limit else ""
        idle = [{**times, "user": user} for user, busy in found if not busy]
        if idle:
            await self._database.write_ordered(lambda db: db.executemany(SQL["forget_recipient"], idle).rowcount)

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        return self._database.read(lambda db: reading.inspect(db, user, limit))

    async def totals(self, user: str | None) -> QueueTotals:
        return self._database.read(lambda db: reading.totals(db, user))
