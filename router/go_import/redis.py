"""What go-routing-service left in Redis: lists of the hot queue, which it fills from the left."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import WatchError

from router.backends.redis.address import check_files, parse
from router.backends.redis.client import closed
from router.backends.redis.error_translation import FOREIGN, translated
from router.errors import ConfigError, Unavailable
from router.go_import.stored import Unreadable, Waiting, entry

TIMEOUT_SECONDS = 10
PAGE = 1000
_KEY = re.compile(r"(?:queue|pending):(urn:[^:]+:[^:]+:[^:]+)(?::high)?")


def keys(user: str) -> list[str]:
    """Mail that was fetched and not acknowledged, express mail, and other mail."""
    return [f"pending:{user}", f"queue:{user}:high", f"queue:{user}"]


class GoRedis:
    """One server. Reads whole lists: they are in the memory of one Redis, so one user's fit into ours."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """The server of ``url``, which has the form of ``online.url``. Raises ``ConfigError``."""
        try:
            address = parse(url, "single")
            check_files(address.options)
        except ConfigError as error:
            raise ConfigError(str(error).replace("online.url", "--redis")) from error
        ((host, port),) = address.hosts
        times = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
        options: dict[str, Any] = {**address.options, **times}
        redis = Redis(host=host, port=port, **options)
        try:
            yield cls(redis)
        finally:
            await closed(redis)

    async def users(self) -> AsyncIterator[str]:
        """Everybody who has mail, some more than once."""
        for pattern in ("queue:urn:*", "pending:urn:*"):
            cursor = 0
            while True:
                with _translating():
                    cursor, found = await self._redis.scan(cursor, match=pattern, count=PAGE)
                for key in found:
                    if named := _KEY.fullmatch(key.decode(errors="replace")):
                        yield named[1]
                if not cursor:
                    break

    async def places(self, user: str) -> tuple[list[list[Waiting]], list[tuple[str, Unreadable]]]:
        """The messages of ``user``, a list for each key, the oldest first; and (key, why) of all else."""
        places: list[list[Waiting]] = []
        unreadable: list[tuple[str, Unreadable]] = []
        for key in keys(user):
            places.append([])
            for value in reversed(await self._values(key)):
                try:
                    places[-1].append(entry(key, value))
                except Unreadable as error:
                    unreadable.append((key, error))
        return places, unreadable

    async def _values(self, key: str) -> list[bytes]:
        with _translating():
            values: list[bytes] = await self._redis.lrange(key, 0, -1)
            return values

    async def delete(self, user: str, ids: Collection[str]) -> int:
        """Delete the messages of ``user`` that have these ids, and nothing else; returns how many these were.

        Raises ``Unavailable`` where another program changes the list meanwhile.
        """
        deleted = 0
        for key in keys(user):
            try:
                with _translating():
                    deleted += await self._delete(key, ids)
            except WatchError as error:
                raise Unavailable(f"{key} has changed: is go-routing-service still running? Stop it first") from error
        return deleted

    async def _delete(self, key: str, ids: Collection[str]) -> int:
        async with self._redis.pipeline() as transaction:
            await transaction.watch(key)
            values = await transaction.lrange(key, 0, -1)
            kept = [value for value in values if entry(key, value).id not in ids]
            transaction.multi()
            transaction.delete(key)
            if kept:
                transaction.rpush(key, *kept)
            await transaction.execute()
            return len(values) - len(kept)


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except WatchError:
        raise
    except FOREIGN as error:
        raise Unavailable(str(translated(error)).replace("online.url", "--redis")) from error
