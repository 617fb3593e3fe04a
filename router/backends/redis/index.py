"""Indexes over all users, for walks over them: sorted sets, spread over a fixed number of keys.

In a cluster an index cannot be in the same slot as each user's keys, so no script can change both. The rule is: first
the script, then the index, and a call succeeds only when both are done. A user is removed only by comparison: if a call
has listed them again since they were read, they stay. So an index may hold too many users; it lacks one only until a
failed call is repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Literal

from router.backends.redis.client import Client
from router.backends.redis.keys import SHARDS, Keys, shard_of
from router.backends.redis.scripts import Command, Scripts

Seen = tuple[str, int]
"""A user, and the number with which they were listed when they were read."""
Change = tuple[Seen, int | None]
"""A user as they were read, and their next number; ``None`` to remove them."""
CLAIM_SECONDS = 300
"""If a process that has claimed users dies, another one can claim them after this time."""
_MICROSECONDS = 1_000_000


class Index:
    """One index: users by a number, which is a time, or random."""

    def __init__(self, name: str, client: Client, keys: Keys, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = [keys.index(name, shard) for shard in range(SHARDS)]

    def listing(self, numbers: Mapping[str, int], how: Literal["always", "if-less"] = "always") -> list[Command]:
        """The commands that list these users with their numbers; ``if-less`` keeps a number that is lower."""
        shards: dict[int, list[int | str]] = {}
        for user, number in numbers.items():
            shards.setdefault(shard_of(user), []).extend((number, user))
        return [self._scripts.call("list", (self._keys[shard],), how, *pairs) for shard, pairs in shards.items()]

    def relisting(self, changes: Iterable[Change]) -> list[Command]:
        """The commands that give these users their next number or remove them, unless a call has listed them since."""
        shards: dict[int, list[int | str]] = {}
        for (user, seen), number in changes:
            shards.setdefault(shard_of(user), []).extend((user, seen, "" if number is None else number))
        return [self._scripts.call("relist", (self._keys[shard],), *change) for shard, change in shards.items()]

    async def number_of(self, user: str) -> int | None:
        """The number with which ``user`` is listed, if they are."""
        (found,) = await self._client.run([("ZSCORE", self._keys[shard_of(user)], user)])
        return None if found is None else _number(found)

    async def claim(self, now: int, limit: int) -> list[Seen]:
        """Up to ``limit`` users whose time has come; no other caller gets them for ``CLAIM_SECONDS``."""
        until = now + CLAIM_SECONDS * _MICROSECONDS
        counts = await self._client.run([("ZCOUNT", key, "-inf", now) for key in self._keys])
        parts = zip(self._keys, evenly(counts, limit), strict=True)
        calls = [self._scripts.call("claim", (key,), now, until, part) for key, part in parts if part]
        claimed = await self._client.run(calls) if calls else []
        return [(user.decode(), until) for users in claimed for user in users]

    async def due(self, now: int, most: int) -> list[str]:
        """Users whose time has come, up to ``most`` of each key; nobody claims them."""
        calls: list[Command] = [("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, most) for key in self._keys]
        return [user.decode() for users in await self._client.run(calls) for user in users]

    async def pages(self, after: str, limit: int, above: int | None = None) -> AsyncIterator[list[Seen]]:
        """All users behind ``after``, by shard and name, in pages of ``limit``; ``above``: only those with a greater
        number."""
        start = shard_of(after) if after else 0
        sizes = await self._client.run([("ZCARD", key) for key in self._keys[start:]])
        filled = [start + offset for offset, size in enumerate(sizes) if size]
        page: list[Seen] = []
        while filled:
            # Ask as many shards at once as are likely to fill a page.
            count = next(
                (n for n in range(1, len(filled)) if sum(sizes[s - start] for s in filled[:n]) >= limit), len(filled)
            )
            taken, filled = filled[:count], filled[count:]
            lowest = "-inf" if above is None else f"({above}"
            calls: list[Command] = [("ZRANGEBYSCORE", self._keys[s], lowest, "+inf", "WITHSCORES") for s in taken]
            for shard, listed in zip(taken, await self._client.run(calls), strict=True):
                found = sorted(zip((u.decode() for u in listed[::2]), map(_number, listed[1::2]), strict=True))
                page += [seen for seen in found if not (shard == start and seen[0] <= after)]
            while len(page) >= limit:
                yield page[:limit]
                page = page[limit:]
        if page:
            yield page


def evenly(counts: Sequence[int], limit: int) -> list[int]:
    """How many to take of each, ``limit`` in all if there are enough: the same of each, as far as it has them."""
    parts = [0] * len(counts)
    fewest_first = sorted(range(len(counts)), key=counts.__getitem__)
    for done, place in enumerate(fewest_first):
        parts[place] = min(counts[place], limit // (len(counts) - done))
        limit -= parts[place]
    return parts


def _number(text: bytes) -> int:
    return int(float(text))
