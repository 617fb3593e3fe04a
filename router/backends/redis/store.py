"""What presence and hot queue share: the way to a user's scripts, and the indexes over all users."""

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


class RedisStore:
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
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._rules = rules
        self._clock = clock
        self._keeper = keeper
        self._skew = Skew()
        self._chance = chance
        self._live = Index("live", client, keys, scripts)
        """Users who may hold a live connection, by the end of its lease."""
        self._busy = Index("busy", client, keys, scripts)
        """Users who may have hot mail, a poke to be answered or a cut page, by a number without a meaning."""
        self._due = Index("due", client, keys, scripts)
        """Users whose records must be looked at, by the time of that."""

    def _call(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Command:
        at = self._clock.now() if now is None else now
        return self._scripts.call(name, self._keys.of(user), at, *arguments)

    async def _one(self, name: str, user: str, *arguments: Argument, now: int | None = None) -> Any:
        """The result of one script, in one round trip."""
        (result,) = await self._client.run([self._call(name, user, *arguments, now=now)])
        return result

    def _list_busy(self, users: Iterable[str]) -> list[Command]:
        # A number that nobody has seen before, so that whoever saw another one does not take these users out.
        return self._busy.listing(dict.fromkeys(users, self._chance.getrandbits(52)))

    def _list_due(self, times: Mapping[str, int]) -> list[Command]:
        return self._due.listing(times, "if-less")

    def _remember_until(self) -> tuple[int, int]:
        """Until when the ids of plain and of keyed messages are remembered that leave the queues now."""
        now = self._keeper.leaving_at()
        return self._rules.remember_until(now, keyed=False), self._rules.remember_until(now, keyed=True)

    @property
    def _orphans_at(self) -> int:
        """When somebody must look whether what was acknowledged just now has left cold. A clock that is ahead delays it
        for nobody, and whoever looks too early is asked to come back."""
        return self._keeper.deleting_at() + ORPHAN_SECONDS * MICROSECONDS

    @property
    def _ephemeral_span(self) -> int:
        """How long after it was accepted ephemeral mail expires by the clock of this process (µs)."""
        return int(self._rules.ephemeral_seconds * MICROSECONDS) + self._skew.ahead


def by_user(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """(user, value) pairs as the values of each user, in their order."""
    grouped: dict[str, list[str]] = {}
    for user, value in pairs:
        grouped.setdefault(user, []).append(value)
    return grouped
