"""What sweepers, readiness and operators ask of the online store."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from router.backends.redis.index import Change, Seen
from router.backends.redis.keys import pack_id, unpack_id, unpack_page
from router.backends.redis.presence import PAGE
from router.backends.redis.scripts import Command
from router.backends.redis.state import RedisState, by_user
from router.backends.routing_rules import LEAD_SECONDS, ORPHAN_SECONDS, UNDER_WAY_SECONDS, implausible_ack
from router.clock import MICROSECONDS, apart
from router.messages import Forgotten, HotUser, Queued, QueueTotals

PAGE_BYTES = 8 * 1024 * 1024
PROBE_SECONDS = 60


class Look(Struct, frozen=True):
    """The result of ``lua/look.lua``."""

    live: int
    hot: int
    oldest_at: int
    unannounced_at: int
    poked_at: int
    fetched: int
    bytes: int
    due_at: int
    cut_at: int

    @property
    def busy(self) -> bool:
        return self.hot > 0 or not self.fetched or self.cut_at > 0

    def of(self, user: str) -> HotUser:
        return HotUser(
            user=user,
            live=self.live,
            hot=self.hot,
            oldest_at=self.oldest_at,
            unannounced_at=self.unannounced_at,
            poked_at=self.poked_at,
            fetched=bool(self.fetched),
            cut_at=self.cut_at,
        )


class Purged(Struct, frozen=True):
    """The result of ``lua/purge.lua``."""

    dropped: int
    due_at: int
    more: int


class RedisMaintenance:
    """``Maintenance`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    async def _look(self, users: Sequence[str]) -> dict[str, Look]:
        """The state of ``users``, by user, without users whose keys are broken."""
        now = self._state.clock.now()
        scripts = [self._state.call("look", user, self._state.ephemeral_span, now=now) for user in users]
        results = await self._state.client.run(scripts, refusals="skip")
        return {user: Look(*result) for user, result in zip(users, results, strict=True) if result is not None}

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        found: list[HotUser] = []
        async for page in self._state.busy.pages(after, limit):
            looks = await self._look([user for user, _ in page])
            found += [look.of(user) for user, look in looks.items() if look.busy]
            await self._retire(
                [(seen, looks[seen[0]]) for seen in page if seen[0] in looks and not looks[seen[0]].busy]
            )
            if len(found) >= limit:
                break
        return found[:limit]

    async def _retire(self, idle: Sequence[tuple[Seen, Look]]) -> None:
        """Take ``idle`` out of the busy index; from here on a sweeper looks at them only when their records are due."""
        due = {user: look.due_at for (user, _), look in idle if look.due_at}
        await self._state.client.run(
            self._state.list_due(due), self._state.busy.relisting((seen, None) for seen, _ in idle)
        )

    async def poke(self, users: Sequence[str]) -> None:
        scripts = [self._state.call("poke", user, self._state.keys.channels, user) for user in users]
        await self._state.client.run(scripts, self._state.list_busy(users))

    async def stop_poking(self, users: Sequence[str]) -> None:
        await self._state.client.run([self._state.call("stop_poking", user) for user in users])

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        announced, found = await self._state.one("unannounced", user, before, limit, PAGE_BYTES)
        return unpack_page(user, found, announced)

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        highest: dict[str, int] = {}
        for queued in messages:
            user = queued.message.recipient
            highest[user] = max(highest.get(user, 0), queued.sequence)
        await self._state.client.run(
            [self._state.call("mark_announced", user, sequence) for user, sequence in highest.items()]
        )

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now = self._state.clock.now()
        users = by_user((queued.message.recipient, queued.message.id) for queued in expired)
        until = self._state.remember_until()
        await self._state.client.run(
            [self._state.call("forget_cold", user, *until, *map(pack_id, ids), now=now) for user, ids in users.items()]
        )

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._state.clock.now()
        before = now - ORPHAN_SECONDS * MICROSECONDS
        # Eight times the part of each key: users are not spread evenly, and some of these owe nothing.
        users = await self._state.due.due(now, max(1, limit // 8))
        spans = ("-inf", before), (f"({implausible_ack(now)}", "+inf")
        asked = [(user, span) for user in users for span in spans]
        calls: list[Command] = [
            ("ZRANGEBYSCORE", self._state.keys.of(user)[7], *span, "LIMIT", 0, limit) for user, span in asked
        ]
        found = zip(asked, await self._state.client.run(calls), strict=True)
        return [(user, unpack_id(packed)) for (user, _), ids in found for packed in ids][:limit]

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        await self._state.one("forget_orphans", user, *map(pack_id, ids))

    async def purge(self, limit: int, at: int) -> int:
        now = self._state.clock.now()
        dropped = 0
        owing: list[Change] = []
        while claimed := await self._state.due.claim(now, limit):
            changes: list[Change] = []
            for seen, purged in await self._purge(claimed, now, at, limit):
                dropped += purged.dropped
                # A user with orphans stays due, for ``orphans`` to find. Relist them after the loop, or it never ends.
                later = owing if 0 < purged.due_at <= now else changes
                later.append((seen, purged.due_at or None))
            await self._state.client.run(self._state.due.relisting(changes))
        await self._state.client.run(self._state.due.relisting(owing))
        return dropped

    async def _purge(self, claimed: Sequence[Seen], now: int, at: int, limit: int) -> list[tuple[Seen, Purged]]:
        """Do everything that is due in the records of these users, at most ``limit`` of a kind in one script."""
        bounds = (
            self._state.ephemeral_span,
            *self._state.remember_until(),
            self._state.rules.abandoned_before(at),
            limit,
            at,
        )
        purged: list[tuple[Seen, Purged]] = []
        while claimed:
            scripts = [self._state.call("purge", user, *bounds, now=now) for user, _ in claimed]
            results = await self._state.client.run(scripts, refusals="skip")
            found = [(seen, Purged(*result)) for seen, result in zip(claimed, results, strict=True) if result]
            purged += found
            claimed = [seen for seen, result in found if result.more]
        return purged

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        _, _, _, announced, _, _, found, _ = await self._state.one("read", user, limit, PAGE_BYTES, 0, 0)
        return unpack_page(user, found, announced)[:limit]

    async def totals(self, user: str | None) -> QueueTotals:
        if user is not None:
            look = Look(*await self._state.one("look", user, self._state.ephemeral_span))
            return QueueTotals(look.hot, look.bytes, int(look.hot > 0), look.oldest_at)
        messages = size = users = 0
        oldest = 0
        async for page in self._state.busy.pages("", PAGE):
            for look in (await self._look([name for name, _ in page])).values():
                messages, size, users = messages + look.hot, size + look.bytes, users + (look.hot > 0)
                oldest = min(oldest or look.oldest_at, look.oldest_at or oldest)
        return QueueTotals(messages, size, users, oldest)

    async def forget_user(self, user: str, limit: int) -> Forgotten:
        now = self._state.clock.now()
        indexes = self._state.live, self._state.busy, self._state.due
        seen = [await index.number_of(user) for index in indexes]
        since = now - UNDER_WAY_SECONDS * MICROSECONDS
        in_use, records, connections, more = await self._state.one("forget_user", user, limit, since, now=now)
        if not (in_use or more):
            # One who has been listed again since then stays.
            gone = [
                index.relisting([((user, number), None)])
                for index, number in zip(indexes, seen, strict=True)
                if number is not None
            ]
            await self._state.client.run(
                [("DEL", self._state.keys.traces(user))], [command for commands in gone for command in commands]
            )
        return Forgotten(records, connections, bool(more), bool(in_use))

    async def lead(self, owner: str) -> bool:
        call = self._state.scripts.call("lead", (self._state.keys.leader,), owner, LEAD_SECONDS * 1000)
        (leads,) = await self._state.client.run([call])
        return bool(leads)

    async def probe(self) -> None:
        # A write: a replica, or a master that refuses all writes, would still answer a PING.
        await self._state.client.run([self._state.scripts.call("probe", (self._state.keys.probe,), PROBE_SECONDS)])

    async def compare_clocks(self) -> float:
        before = self._state.clock.now()
        times = await self._state.client.on_each("TIME")
        after = self._state.clock.now()
        ahead = sorted(apart(before, after, int(time[0]) * MICROSECONDS + int(time[1])) for _, time in times)
        return self._state.skew.measured(ahead[len(ahead) // 2])
