"""What the parts of the online store share: calls of a user's scripts, and the indexes over all users."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from router.backends.redis.client import Client
from router.backends.redis.index import Index
from router.backends.redis.keys import Keys
from router.backends.redis.scripts import Argument, Command, Scripts
from router.backends.routing_rules import ORPHAN_SECONDS, Skew, StoreRules
from router.clock import MICROSECONDS, Clock
from router.timekeeping import Timekeeper


class RedisState:
    """All keys of a user have one hash tag, and each change of them is one script; see docs/redis.md for the keys."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        scripts: Scripts,
        rules: StoreRules,
        *,
        clock: Clock,
        keeper: Timekeeper,
        chance: random.Random,
    ) -> None:
        self.client = client
        self.keys = keys
        self.scripts = scripts
        self.rules = rules
        self.clock = clock
        self.keeper = keeper
        self.skew = Skew()
        self.chance = chance
        self.live = Index("live", client, keys, scripts)
        """Users who may have a live connection, by the end of its lease."""
        self.busy = Index("busy", client, keys, scripts)
        """Users who may have hot mail, an unanswered poke or a page that was cut short, by a random number."""
        self.due = Index("due", client, keys, scripts)
        """Users whose records a sweeper must look at, by the time when it must."""

    def call(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Command:
        at = self.clock.now() if now is None else now
        return self.scripts.call(name, self.keys.of(user), at, *arguments)

    async def one(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Any:
        """Run one script, in one round trip, and return its result."""
        (result,) = await self.client.run([self.call(name, user, *arguments, now=now)])
        return result

    def list_busy(self, users: Iterable[str]) -> list[Command]:
        # A random number: a caller that read an earlier number does not remove these users (``Index.relisting``).
        return self.busy.listing(dict.fromkeys(users, self.chance.getrandbits(52)))

    def list_due(self, times: Mapping[str, int]) -> list[Command]:
        return self.due.listing(times, "if-less")

    def remember_until(self) -> tuple[int, int]:
        """When (µs since 1970) the tombstones of plain and of keyed messages end that leave the queues now."""
        now = self.keeper.leaving_at()
        return self.rules.remember_until(now, keyed=False), self.rules.remember_until(now, keyed=True)

    @property
    def orphans_at(self) -> int:
        """When a sweeper must check that copies of messages acknowledged now have left cold. By the earliest time that
        can be believed, so that a clock that is ahead causes no delay; a sweeper that comes too early comes again."""
        return self.keeper.deleting_at() + ORPHAN_SECONDS * MICROSECONDS

    @property
    def ephemeral_span(self) -> int:
        """µs after which an accepted ephemeral message expires, by the clock of this process."""
        return int(self.rules.ephemeral_seconds * MICROSECONDS) + self.skew.ahead


def by_user(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(user, value) pairs as the values of each user, in their order."""
    grouped: dict[str, list[str]] = {}
    for user, value in pairs:
        grouped.setdefault(user, []).append(value)
    return grouped
