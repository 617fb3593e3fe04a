"""The traces of messages in Redis, in a hash of their own for each user."""

from __future__ import annotations

from collections.abc import Sequence

from router.backends.redis.client import Client
from router.backends.redis.keys import Keys, pack_id
from router.backends.redis.scripts import Command
from router.messages import Message
from router.trace_context import TRACE_SECONDS


class RedisTraceContexts:
    """``TraceContexts`` over Redis. The server forgets a user's traces when none was kept for ``TRACE_SECONDS``."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def keep(self, messages: Sequence[Message]) -> None:
        fields: dict[str, list[str | bytes]] = {}
        for message in messages:
            fields.setdefault(self._keys.traces(message.recipient), []).extend((pack_id(message.id), message.trace))
        kept: list[Command] = [("HSET", key, *pairs) for key, pairs in fields.items()]
        await self._client.run(kept, [("PEXPIRE", key, TRACE_SECONDS * 1000) for key in fields])

    async def find(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        (found,) = await self._client.run([self._finding(user, ids)])
        return _by_id(ids, found)

    async def take(self, user: str, ids: Sequence[str]) -> dict[str, str]:
        forgetting: Command = ("HDEL", self._keys.traces(user), *map(pack_id, ids))
        found, _ = await self._client.run([self._finding(user, ids)], [forgetting])
        return _by_id(ids, found)

    def _finding(self, user: str, ids: Sequence[str]) -> Command:
        return ("HMGET", self._keys.traces(user), *map(pack_id, ids))


def _by_id(ids: Sequence[str], found: Sequence[bytes | None]) -> dict[str, str]:
    return {id_: trace.decode() for id_, trace in zip(ids, found, strict=True) if trace is not None}
