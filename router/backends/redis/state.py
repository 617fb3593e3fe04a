"""What the parts of the online store share: the way to a user's scripts, and the indexes over all users."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

from router.backends.redis.client import Client
from router.backends.redis.index import Index
from router.backends.redis.keys import Keys
from router.backends.redis.scripts import Argument, Command, Scripts
from router.backends.rules import ORPHAN_SECONDS, Skew, StoreRules
from router.clock import MICROSECONDS, Clock
from router.timekeeping import Timekeeper


class RedisState:
    """One user's state is under one hash tag and changes by one script; see docs/redis.md for all keys."""

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
        """Users who may hold a live connection, by the end of its lease."""
        self.busy = Index("busy", client, keys, scripts)
        """Users who may have hot mail, a poke to be answered or a cut page, by a number without a meaning."""
        self.due = Index("due", client, keys, scripts)
        """Users whose records must be looked at, by the time of that."""

    def call(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Command:
        at = self.clock.now() if now is None else now
        return self.scripts.call(name, self.keys.of(user), at, *arguments)

    async def one(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Any:
        """The result of one script, in one round trip."""
        (result,) = await self.client.run([self.call(name, user, *arguments, now=now)])
        return result

    def list_busy(self, users: Iterable[str]) -> list[Command]:
        # A number that nobody has seen before, so that whoever saw another one does not take these users out.
        return self.busy.listing(dict.fromkeys(users, self.chance.getrandbits(52)))

    def list_due(self, times: Mapping[str, int]) -> list[Command]:
        return self.due.listing(times, "if-less")

    def remember_until(self) -> tuple[int, int]:
        """Until when the ids of plain and of keyed messages are remembered that leave the queues now."""
        now = self.keeper.leaving_at()
        return self.rules.remember_until(now, keyed=False), self.rules.remember_until(now, keyed=True)

    @property
    def orphans_at(self) -> int:
        """When somebody must look whether what was acknowledged just now has left cold. A clock that is ahead delays it
        for nobody, and whoever looks too early is asked to come back."""
        return self.keeper.deleting_at() + ORPHAN_SECONDS * MICROSECONDS

    @property
    def ephemeral_span(self) -> int:
        """How long after it was accepted ephemeral mail expires by the clock of this process (µs)."""
        return int(self.rules.ephemeral_seconds * MICROSECONDS) + self.skew.ahead


def by_user(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(user, value) pairs as the values of each user, in their order."""
    grouped: dict[str, list[str]] = {}
    for user, value in pairs:
        grouped.setdefault(user, []).append(value)
    return grouped
