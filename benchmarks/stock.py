"""Long queues made quickly: routed beside a running router, in its own data, by the same components that it uses."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from benchmarks.load import Mailbox
from benchmarks.load_http import LoadError
from router import envelope, ids
from router.config import load
from router.factory import Factory
from router.interfaces import ColdQueue, OnlineStore
from router.messages import Delivery, Message, Outcome, Queued, Routed

BATCH = 250
_MAX_BYTES = 1 << 20


class Stock:
    """Puts mail into queues, and looks how much is hot."""

    def __init__(self, online: OnlineStore, cold: ColdQueue) -> None:
        self._online = online
        self._cold = cold

    async def fill(self, box: Mailbox, count: int) -> None:
        """``count`` messages for ``box``: hot if its user is online, else cold."""
        for start in range(0, count, BATCH):
            await self._route([_message(box) for _ in range(min(BATCH, count - start))])

    async def _route(self, messages: Sequence[Message]) -> None:
        routed = await self._online.route([Delivery(message, 0, 1) for message in messages])
        if wrong := [result.outcome for result in routed if result.outcome not in (Outcome.HOT, Outcome.COLD)]:
            raise LoadError(f"a queue could not be filled: {wrong[0]}")
        owed = [
            _queued(message, result)
            for message, result in zip(messages, routed, strict=True)
            if result.outcome is Outcome.COLD
        ]
        if owed:
            await self._cold.put(owed)
            await self._online.settle(owed)

    async def hot(self) -> int:
        """How many messages are hot now; cheap enough to ask every few milliseconds."""
        return sum(user.hot for user in await self._online.hot_users("", 500))


@contextlib.asynccontextmanager
async def stock(environment: Mapping[str, str]) -> AsyncIterator[Stock]:
    """Of running routers with this ``environment``."""
    async with Factory(load(environ=environment)) as factory:
        yield Stock(await factory.online_store(), await factory.cold_queue())


def _message(box: Mailbox) -> Message:
    number, sealed = box.envelope()
    read = envelope.read(sealed, _MAX_BYTES)
    now = time.time_ns() // 1000
    id_ = ids.new_id(now, secrets.token_bytes(10))
    # It is routed in this order, or there is no figure.
    box.accepted(number, id_)
    return Message(id_, read.recipient, read.canonical, read.lane, read.ephemeral, now)


def _queued(message: Message, result: Routed) -> Queued:
    return Queued(message, result.sequence, result.queued_at)
