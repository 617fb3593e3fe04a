"""The ingress over Pub/Sub: one topic, and one subscription with message ordering that all pipelines share."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from router.backends.pubsub.acknowledgements import Settling
from router.backends.pubsub.bodies import IngressReader, ingress_message
from router.backends.pubsub.publisher import Publisher
from router.backends.pubsub.receiver import Pulls, Source, Stream
from router.backends.pubsub.resources import LEASE_SECONDS, check_ingress_subscription
from router.backends.pubsub.wire import PubSubApi
from router.clock import Clock
from router.config import Config
from router.errors import RouterError, Unavailable
from router.messages import Delivery, Message, QueueTotals

EXTEND_SECONDS = 3.0
"""Interval at which leases are extended; one extension may fail."""
STOP_SECONDS = 2.0
"""A stream that has not ended by then is cancelled."""
PULLED_SECONDS = 1
"""With Pull calls, what is handed back is redelivered after this. If its lease ended at once, the emulator would put it
behind what waits for the same key; if the lease runs out, the emulator keeps the order."""
BUFFER_MESSAGES = 1024
BUFFER_BYTES = 32_000_000
"""Bounds of what is read ahead; beyond either, reading stops."""


class PubSubIngressProducer:
    """``IngressProducer``: a message is durable once Pub/Sub has confirmed it."""

    def __init__(self, api: PubSubApi, publisher: Publisher, topic: str, shards: int) -> None:
        self._api = api
        self._publisher = publisher
        self._topic = topic
        self._shards = shards

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        bodies = [ingress_message(message, self._shards) for message in messages]
        if len(bodies) > 1:
            return await self._publisher.publish_each(bodies)
        await self._publisher.publish(bodies)
        return [None] * len(bodies)

    async def probe(self) -> None:
        await self._api.call("get_topic", self._topic, topic=self._topic)

    async def backlog(self) -> QueueTotals | None:
        return None


class PubSubIngressConsumer:
    """``IngressConsumer``, an async context manager: reads ahead, extends its leases, and hands back the rest at its
    exit."""

    def __init__(self, api: PubSubApi, config: Config, clock: Clock, chance: random.Random) -> None:
        self._api = api
        self._config = config
        self._subscription = api.subscription(config.ingress.subscription)
        self._source: Source
        if config.ingress.pulls:
            self._source = Pulls(api, self._subscription, config.ingress.pulls, chance)
            self._settling = Settling(api, self._subscription, PULLED_SECONDS)
        else:
            self._source = Stream(api, self._subscription, LEASE_SECONDS, chance)
            self._settling = Settling(api, self._subscription)
        self._reader = IngressReader(config, clock)
        self._clock = clock
        self._buffer: deque[Any] = deque()
        self._bytes = 0
        self._leases: dict[str, None] = {}
        """Ack ids of all that is in the buffer or with the pipeline, the oldest first."""
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._failure: RouterError | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        await check_ingress_subscription(self._api, self._config)
        loop = asyncio.get_running_loop()
        self._receiving = loop.create_task(self._source.run(self._took, self._failed), name="receive")
        self._keeping = loop.create_task(self._keep_leases(), name="leases")
        for task in (self._receiving, self._keeping):
            task.add_done_callback(lambda _: self._arrived.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        self._taken.set()
        await self._source.stop()
        await asyncio.wait([self._receiving], timeout=STOP_SECONDS)
        for task in (self._receiving, self._keeping):
            task.cancel()
        await asyncio.gather(self._receiving, self._keeping, return_exceptions=True)
        self._settling.nack(list(self._leases))
        self._leases.clear()
        await self._settling.told()

    async def receive(self, limit: int) -> list[Delivery]:
        while not self._buffer:
            self._raise_failure()
            self._arrived.clear()
            await self._arrived.wait()
        received = [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]
        self._bytes -= sum(len(each.message.data) for each in received)
        self._taken.set()
        return [self._reader.read(each) for each in received]

    def _raise_failure(self) -> None:
        for task in (self._receiving, self._keeping):
            if task.done():
                task.result()  # they end only by a bug, which must not leave the pipeline waiting
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise Unavailable(str(failure)) from failure

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settling.ack(self._release(deliveries))

    async def nack(self, deliveries: Sequence[Delivery]) -> None:
        self._settling.nack(self._release(deliveries))
        await self._settling.told()

    def _release(self, deliveries: Sequence[Delivery]) -> list[str]:
        ids = [str(delivery.receipt) for delivery in deliveries]
        for id_ in ids:
            self._leases.pop(id_, None)
        return ids

    async def _took(self, received: Sequence[Any]) -> None:
        self._buffer.extend(received)
        self._bytes += sum(len(each.message.data) for each in received)
        self._leases.update(dict.fromkeys(each.ack_id for each in received))
        self._failure = None
        self._arrived.set()
        while not self._closing and (len(self._buffer) >= BUFFER_MESSAGES or self._bytes >= BUFFER_BYTES):
            self._taken.clear()
            await self._taken.wait()

    def _failed(self, error: RouterError) -> None:
        self._failure = error
        self._arrived.set()

    async def _keep_leases(self) -> None:
        while True:
            await self._clock.sleep(EXTEND_SECONDS)
            await self._settling.extend(list(self._leases), LEASE_SECONDS)
