"""What sweepers and people ask of all users, and the pokes and marks that follow."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from router.backends.redis.index import Seen
from router.backends.redis.keys import unpack_id, unpack_page
from router.backends.redis.presence import PAGE, RedisPresence
from router.backends.redis.scripts import Command
from router.backends.rules import DAY_SECONDS, ORPHAN_SECONDS
from router.clock import MICROSECONDS
from router.messages import HotUser, Queued, QueueTotals

PAGE_BYTES = 8 * 1024 * 1024


class Look(Struct, frozen=True):
    """What ``lua/look.lua`` returns."""

    live: int
    hot: int
    oldest_at: int
    unannounced_at: int
    poked_at: int
    fetched: int
    bytes: int
    due_at: int

    @property
    def busy(self) -> bool:
        return self.hot > 0 or not self.fetched

    def of(self, user: str) -> HotUser:
        return HotUser(
            user, self.live, self.hot, self.oldest_at, self.unannounced_at, self.poked_at, bool(self.fetched)
        )


class RedisSweeping(RedisPresence):
    """The walks over all users."""

    def __init__(self, *parts: object, retention_days: float, **more: object) -> None:
        super().__init__(*parts, **more)  # type: ignore[arg-type]  # passes on what RedisStore takes
        self._retention = int((retention_days + 1) * DAY_SECONDS * MICROSECONDS)

    async def _look(self, users: Sequence[str]) -> list[Look]:
        now = self._clock.now()
        results = await self._client.run([self._call("look", user, self._ephemeral_span, now=now) for user in users])
        return [Look(*result) for result in results]

    async def hot_users(self, after: str, limit: int) -> list[HotUser]:
        found: list[HotUser] = []
        async for page in self._busy.pages(after, limit):
            looks = await self._look([user for user, _ in page])
            found += [look.of(user) for (user, _), look in zip(page, looks, strict=True) if look.busy]
            await self._retire([(seen, look) for seen, look in zip(page, looks, strict=True) if not look.busy])
            if len(found) >= limit:
                break
        return found[:limit]

    async def _retire(self, idle: Sequence[tuple[Seen, Look]]) -> None:
        """These are not busy any more: from here on only their records are looked at, when that is due."""
        due = {user: look.due_at for (user, _), look in idle if look.due_at}
        await self._client.run(self._list_due(due), self._busy.relisting((seen, None) for seen, _ in idle))

    async def poke(self, users: Sequence[str]) -> None:
        scripts = [self._call("poke", user, self._keys.channels, user) for user in users]
        await self._client.run(scripts, self._list_busy(users))

    async def hush(self, users: Sequence[str]) -> None:
        await self._client.run([self._call("hush", user) for user in users])

    async def unannounced(self, user: str, before: int, limit: int) -> list[Queued]:
        announced, found = await self._one("unannounced", user, before, limit, PAGE_BYTES)
        return unpack_page(user, found, announced)

    async def mark_announced(self, messages: Sequence[Queued]) -> None:
        highest: dict[str, int] = {}
        for queued in messages:
            user = queued.message.recipient
            highest[user] = max(highest.get(user, 0), queued.sequence)
        await self._client.run([self._call("mark_announced", user, sequence) for user, sequence in highest.items()])

    async def orphans(self, limit: int) -> list[tuple[str, str]]:
        now = self._clock.now()
        before = now - ORPHAN_SECONDS * MICROSECONDS
        users = await self._due.due(now, limit)
        calls: list[Command] = [
            ("ZRANGEBYSCORE", self._keys.of(user)[7], "-inf", before, "LIMIT", 0, limit) for user in users
        ]
        found = zip(users, await self._client.run(calls), strict=True)
        return [(user, unpack_id(packed)) for user, ids in found for packed in ids][:limit]

    async def purge(self, limit: int) -> int:
        now = self._clock.now()
        claimed = await self._due.claim(now, limit)
        bounds = (self._ephemeral_span, *self._remember_until(now), now - self._retention, limit)
        results = await self._client.run([self._call("tend", user, *bounds, now=now) for user, _ in claimed])
        changes = [(seen, due_at or None) for seen, (_, due_at) in zip(claimed, results, strict=True)]
        await self._client.run(self._due.relisting(changes))
        return sum(dropped for dropped, _ in results)

    async def inspect(self, user: str, limit: int) -> list[Queued]:
        _, _, _, announced, found, _ = await self._one("read", user, limit, PAGE_BYTES, 0, 0)
        return unpack_page(user, found, announced)

    async def totals(self, user: str | None) -> QueueTotals:
        if user is not None:
            (look,) = await self._look([user])
            return QueueTotals(look.hot, look.bytes, int(look.hot > 0), look.oldest_at)
        messages = size = users = 0
        oldest = 0
        async for page in self._busy.pages("", PAGE):
            for look in await self._look([name for name, _ in page]):
                messages, size, users = messages + look.hot, size + look.bytes, users + (look.hot > 0)
                oldest = min(oldest or look.oldest_at, look.oldest_at or oldest)
        return QueueTotals(messages, size, users, oldest)
