"""Pokes over Pub/Sub: a topic for each node, so that a poke costs the same however many nodes there are."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from router import logs
from router.backends.google.calls import pause
from router.backends.pubsub.acknowledgements import Settling
from router.backends.pubsub.poke_outbox import PokeOutbox
from router.backends.pubsub.poke_topics import LEASE_SECONDS, PokeTopics
from router.backends.pubsub.receiver import Stream
from router.backends.pubsub.wire import PubSubApi
from router.errors import RouterError
from router.metrics import Metrics

LOG = logs.logger(__name__)
WAITING_BATCHES = 200
"""Messages kept while the listener does not read; pokes beyond them are left to the sweeper."""
CHECK_SECONDS = 60.0
"""How often a node checks that its subscription still belongs to its topic: if somebody deletes the topic, the
subscription stays and receives nothing."""


class PubSubPokeBus:
    """``PokeBus``: best effort; ``publish`` does not wait until pokes are sent."""

    def __init__(
        self, api: PubSubApi, topics: PokeTopics, outbox: PokeOutbox, chance: random.Random, metrics: Metrics
    ) -> None:
        self._api = api
        self._topics = topics
        self._outbox = outbox
        self._chance = chance
        self._metrics = metrics

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        self._outbox.add(pokes)

    async def listen(self, node: str) -> AsyncIterator[list[str]]:
        arrived: asyncio.Queue[list[str]] = asyncio.Queue(WAITING_BATCHES)
        receiving = asyncio.create_task(self._receive(node, arrived))
        collecting = asyncio.create_task(self._topics.collect())
        try:
            while True:
                yield await _next(arrived, receiving)
        finally:
            for task in (receiving, collecting):
                task.cancel()
            await asyncio.wait([receiving, collecting])
            await self._topics.delete(node)

    async def _receive(self, node: str, arrived: asyncio.Queue[list[str]]) -> None:
        """Make topic and subscription, again if somebody deletes them, and read until cancelled."""
        while True:
            await self._make(node)
            await self._read(node, arrived)

    async def _read(self, node: str, arrived: asyncio.Queue[list[str]]) -> None:
        """Read until that fails for any reason, or until the subscription no longer belongs to the node's topic."""
        name = self._topics.subscription(node)
        settling, failed = Settling(self._api, name), asyncio.Event()

        async def took(received: Sequence[Any]) -> None:
            settling.ack([each.ack_id for each in received])
            for each in received:
                self._offer(each.message.data, arrived)

        stream = Stream(self._api, name, LEASE_SECONDS, self._chance)
        reading = asyncio.create_task(stream.run(took, lambda _: failed.set()))
        reading.add_done_callback(lambda _: failed.set())
        try:
            while not failed.is_set() and await self._leads(node):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await failed.wait()
            if reading.done():
                reading.result()  # it ends only by a bug, which must not leave the node without pokes
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    def _offer(self, data: bytes, arrived: asyncio.Queue[list[str]]) -> None:
        try:
            users = msgspec.json.decode(data, type=list[str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Somebody else publishes here. If that ended the listener, the node's users would get no more pokes.
            self._metrics.poked("unreadable", 1)
            LOG.warning("dropped a message on the poke topic that is not a poke", size=len(data))
            return
        try:
            arrived.put_nowait(users)
        except asyncio.QueueFull:
            self._metrics.poked("left", len(users))

    async def _make(self, node: str) -> None:
        failures = 0
        while True:
            try:
                await self._topics.make(node)
            except RouterError as error:
                failures += 1
                if failures == 1:
                    LOG.warning("no pokes reach this node; the sweeper repeats them", reason=str(error))
                await asyncio.sleep(pause(failures, self._chance))
            else:
                return

    async def _leads(self, node: str) -> bool:
        """Whether pokes reach this node; true if Pub/Sub does not answer."""
        try:
            return await self._topics.leads(node)
        except RouterError:
            return True


async def _next(arrived: asyncio.Queue[list[str]], receiving: asyncio.Task[None]) -> list[str]:
    """The next users to poke. Raises the error that ended ``receiving``, which is a bug."""
    getting = asyncio.ensure_future(arrived.get())
    try:
        await asyncio.wait({getting, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            receiving.result()
        return getting.result()
    finally:
        getting.cancel()
