"""Pokes over Pub/Sub: one topic, and for each node a subscription that takes only what is meant for it.

A node makes its subscription when it begins to listen and deletes it when it ends; that of a node which died expires.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from router import logs
from router.backends.google.calls import pause
from router.backends.pubsub.publishing import Publisher
from router.backends.pubsub.receiving import Stream
from router.backends.pubsub.settling import Settling
from router.backends.pubsub.wire import PubSubApi, PubsubMessage
from router.errors import RouterError
from router.metrics import Metrics

LOG = logs.logger(__name__)
LEASE_SECONDS = 10
RETENTION_SECONDS = 600
"""The least that the service allows; an old poke is worth nothing."""
EXPIRE_SECONDS = 86_400
"""The least that the service allows: a subscription that nobody reads is deleted after it."""
DELETE_SECONDS = 2.0
USERS = 500
"""Users in one message."""
WAITING_USERS = 100_000
"""Pokes kept for a listener that does not read; beyond them pokes are left to the sweeper."""


def node_subscription(topic: str, node: str) -> str:
    """The name of a node's subscription."""
    return f"{topic}-{node}"


class PubSubPokeBus:
    """``PokeBus``: best effort, and no poke is waited for."""

    def __init__(
        self, api: PubSubApi, publisher: Publisher, topic: str, chance: random.Random, metrics: Metrics
    ) -> None:
        """``topic`` is its short name."""
        self._api = api
        self._publisher = publisher
        self._topic = topic
        self._chance = chance
        self._metrics = metrics

    async def publish(self, pokes: Sequence[tuple[str, str]]) -> None:
        by_node: dict[str, dict[str, None]] = {}
        for node, user in pokes:
            by_node.setdefault(node, {})[user] = None
        for node, own in by_node.items():
            users = list(own)
            for start in range(0, len(users), USERS):
                some = users[start : start + USERS]
                message = PubsubMessage(data=msgspec.json.encode(some), attributes={"node": node})
                if not self._publisher.offer(message):
                    self._metrics.poked("left", len(some))

    async def listen(self, node: str) -> AsyncIterator[list[str]]:
        name = self._api.subscription(node_subscription(self._topic, node))
        arrived: asyncio.Queue[list[str]] = asyncio.Queue(WAITING_USERS // USERS)
        receiving = asyncio.create_task(self._receive(name, node, arrived))
        try:
            while True:
                yield await _next(arrived, receiving)
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])
            await self._delete(name)

    async def _receive(self, name: str, node: str, arrived: asyncio.Queue[list[str]]) -> None:
        """Make the subscription, also when it has vanished, and read it until cancelled."""
        while True:
            await self._create(name, node)
            await self._read(name, node, arrived)

    async def _read(self, name: str, node: str, arrived: asyncio.Queue[list[str]]) -> None:
        """Return when the subscription can't be read, for whatever reason."""
        settling, failed = Settling(self._api, name), asyncio.Event()

        async def took(received: Sequence[Any]) -> None:
            settling.ack([each.ack_id for each in received])
            for each in received:
                if each.message.attributes["node"] == node:  # the emulator does not filter
                    self._offer(each.message.data, arrived)

        stream = Stream(self._api, name, LEASE_SECONDS, self._chance)
        reading = asyncio.create_task(stream.run(took, lambda _: failed.set()))
        reading.add_done_callback(lambda _: failed.set())
        try:
            await failed.wait()
            if reading.done():
                reading.result()  # it ends by a bug only, and nobody is to listen to nothing because of it
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    def _offer(self, data: bytes, arrived: asyncio.Queue[list[str]]) -> None:
        try:
            users = msgspec.json.decode(data, type=list[str])
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Somebody else publishes here. A listener that ended because of it would be deaf to its users.
            self._metrics.poked("unreadable", 1)
            LOG.warning("what came as pokes is none", size=len(data))
            return
        try:
            arrived.put_nowait(users)
        except asyncio.QueueFull:
            self._metrics.poked("left", len(users))

    async def _create(self, name: str, node: str) -> None:
        fields = {
            "name": name,
            "topic": self._api.topic(self._topic),
            "filter": f'attributes.node = "{node}"',
            "ack_deadline_seconds": LEASE_SECONDS,
            "message_retention_duration": {"seconds": RETENTION_SECONDS},
            "expiration_policy": {"ttl": {"seconds": EXPIRE_SECONDS}},
        }
        failures = 0
        while True:
            try:
                await self._api.create("create_subscription", name, **fields)
            except RouterError as error:
                failures += 1
                if failures == 1:
                    LOG.warning("no pokes reach this node; the sweeper repeats them", reason=str(error))
                await asyncio.sleep(pause(failures, self._chance))
            else:
                return

    async def _delete(self, name: str) -> None:
        try:
            await self._api.call(
                "delete_subscription", name, subscription=name, seconds=DELETE_SECONDS, repeated=frozenset()
            )
        except RouterError as error:
            LOG.warning("the subscription of this node is left to expire", subscription=name, reason=str(error))


async def _next(arrived: asyncio.Queue[list[str]], receiving: asyncio.Task[None]) -> list[str]:
    """What arrives next; raises what ``receiving`` ended with, which is a bug."""
    getting = asyncio.ensure_future(arrived.get())
    try:
        await asyncio.wait({getting, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            receiving.result()
        return getting.result()
    finally:
        getting.cancel()
