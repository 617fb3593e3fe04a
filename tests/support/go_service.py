"""What go-routing-service leaves behind, written as it writes it: docs/from-go-routing-service.md#what-it-stores."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from router.backends.firestore.wire import new_write
from router.go_import.firestore import GoFirestore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGAN = 1_760_000_000_000_000
"""µs since 1970; messages are queued some µs after it."""


class Left:
    """Writes into the stores that ``firestore`` and ``redis`` have opened, past what they offer."""

    def __init__(self, firestore: GoFirestore, redis: Redis) -> None:
        self._firestore = firestore
        self._redis: Any = redis

    async def document(
        self,
        collection: str,
        user: str,
        id_: str,
        at: int,
        *,
        data: bytes = b"sealed",
        priority: int | None = None,
        ephemeral: bool = False,
        recipient: str | None = None,
    ) -> str:
        """``messages/{id_}`` in the collection of ``user``; returns its path."""
        write = new_write()
        write.update.name = f"{self._firestore._root}/{collection}/{user}/messages/{id_}"
        write.update.fields["queued_at"].timestamp_value.FromMicroseconds(BEGAN + at)
        envelope = write.update.fields["envelope"].map_value.fields
        envelope["RecipientId"].string_value = recipient or user
        envelope["EncryptedData"].bytes_value = data
        envelope["EncryptedSymmetricKey"].bytes_value = b"key"
        envelope["Signature"].null_value = 0
        envelope["IsEphemeral"].boolean_value = ephemeral
        if priority is None:
            envelope["Priority"].null_value = 0
        else:
            envelope["Priority"].integer_value = priority
        assert await self._firestore._writer.write([write]) == [None]
        path: str = write.update.name
        return path

    async def documents(self, user: str, ids: Sequence[str]) -> None:
        """Cold mail, queued in the order of ``ids``."""
        for at, id_ in enumerate(ids):
            await self.document("cold-queue", user, id_, at)

    async def bare(self, user: str, id_: str) -> None:
        """A document without an envelope."""
        write = new_write()
        write.update.name = f"{self._firestore._root}/cold-queue/{user}/messages/{id_}"
        write.update.fields["queued_at"].timestamp_value.FromMicroseconds(BEGAN)
        assert await self._firestore._writer.write([write]) == [None]

    async def pushed(self, key: str, user: str, id_: str, at: int | None = None, **envelope: object) -> None:
        """An entry in front of the list ``key``, as ``LPUSH`` puts it there."""
        sealed = {"recipientId": user, "encryptedData": base64.b64encode(b"sealed").decode()}
        entry: dict[str, object] = {"id": id_, "envelope": {**sealed, **envelope}}
        if at is not None:
            queued = _EPOCH + timedelta(microseconds=BEGAN + at)
            entry["queued_at"] = queued.isoformat().replace("+00:00", "Z")
        await self._redis.lpush(key, json.dumps(entry))

    async def fetched(self, user: str) -> None:
        """A client fetches one message of hot mail in Redis, and does not acknowledge it."""
        if await self._redis.rpoplpush(f"queue:{user}:high", f"pending:{user}") is None:
            await self._redis.rpoplpush(f"queue:{user}", f"pending:{user}")

    async def everything(self) -> list[object]:
        """All that is in both stores."""
        found: list[object] = []
        for collection in ("cold-queue", "hot-queue-main", "hot-queue-main_high", "hot-queue-pending"):
            async for user in self._firestore._client.list(self._firestore._root, collection, missing=True):
                found += [
                    (document.name, document.update_time.ToMicroseconds())
                    async for document in self._firestore._client.list(user.name, "messages")
                ]
        for key in sorted(await self._redis.keys("*")):
            found.append((key, await self._redis.lrange(key, 0, -1)))
        return found
