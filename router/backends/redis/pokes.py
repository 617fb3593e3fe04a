"""The poke bus: one channel for each node, so that a poke goes only to the nodes that hold the user's connections.

A script publishes a poke in the same step that decides to send it. A listener whose subscription breaks subscribes
again; sweepers repeat the pokes that got lost meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from router import logs
from router.backends.redis.client import Client
from router.backends.redis.error_translation import FOREIGN
from router.backends.redis.keys import Keys
from router.clock import Clock
from router.errors import Unavailable
from router.metrics import Metrics
from router.retry import backoff

LOG = logs.logger(__name__)
IDLE_SECONDS = 5.0
"""After this time without a poke, the listener pings the server."""
ANSWER_SECONDS = 5.0
"""Time-out of that ping."""
BUNCH = 500


class RedisPokeBus:
    """``PokeBus`` over Pub/Sub of Redis."""

    def __init__(self, client: Client, keys: Keys, clock: Clock, chance: random.Random, metrics: Metrics) -> None:
        self._client = client
        self._keys = keys
        self._clock = clock
        self._chance = chance
        self._metrics = metrics

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        await self._client.run([("PUBLISH", self._keys.channels + node, user) for node, user in pokes])

    async def listen(self, node: str) -> AsyncIterator[list[str]]:
        failures = 0
        while True:
            try:
                async with aclosing(self._subscribed(node)) as bunches:
                    async for users in bunches:
                        if failures:
                            LOG.info("pokes are received again", failures=failures)
                        failures = 0
                        if users:
                            yield users
            except (*FOREIGN, Unavailable) as error:
                failures += 1
                if failures == 1:
                    LOG.warning("the subscription to pokes broke; the sweeper repeats them", error=str(error))
                await self._clock.sleep(backoff(failures, self._chance))

    async def _subscribed(self, node: str) -> AsyncGenerator[list[str], None]:
        """Batches of users, empty ones included, until the subscription breaks."""
        async with self._client.listener() as redis:
            pubsub: Any = redis.pubsub()
            async with asyncio.timeout(ANSWER_SECONDS):
                await pubsub.subscribe(self._keys.channels + node)
            while True:
                yield self._users(await _bunch(pubsub))

    def _users(self, bunch: Iterable[bytes]) -> list[str]:
        users = []
        for poke in bunch:
            try:
                users.append(poke.decode())
            except UnicodeDecodeError:
                # Another program publishes here. The listener must not end, or this node would miss its pokes.
                self._metrics.poked("unreadable", 1)
                LOG.warning("dropped a message on the poke channel that is not a poke", size=len(poke))
        return users


async def _bunch(pubsub: Any) -> Iterable[bytes]:
    """Wait for the next message, and return it with all that have arrived behind it, each once; empty for the answer to
    a ping."""
    message = await pubsub.get_message(timeout=IDLE_SECONDS)
    if message is None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await pubsub.ping()
        message = await pubsub.get_message(timeout=ANSWER_SECONDS)
        if message is None:
            raise TimeoutError("the subscription does not answer")
    pokes: dict[bytes, None] = {}
    while message is not None:
        if message["type"] == "message":
            pokes[message["data"]] = None
        message = await pubsub.get_message(timeout=0) if len(pokes) < BUNCH else None
    return pokes
