"""All Pub/Sub components over one channel."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from router.backends.google.channels import PUBSUB, open_channel, project
from router.backends.pubsub.bodies import notification_request, push_command
from router.backends.pubsub.ingress import PubSubIngressConsumer, PubSubIngressProducer
from router.backends.pubsub.poke_outbox import PokeOutbox
from router.backends.pubsub.poke_topics import PokeTopics
from router.backends.pubsub.pokes import PubSubPokeBus
from router.backends.pubsub.publishing import CALLS, SHARED_KEY_CALLS, Publisher
from router.backends.pubsub.push import PubSubDeadLetterQueue, PubSubDeadLetters, PubSubPushNotifier
from router.backends.pubsub.resources import check_topics, dead_letter_subscription
from router.backends.pubsub.wire import PubSubApi
from router.clock import Clock
from router.config import Config
from router.metrics import Metrics

FORMS = {"command": push_command, "notification-request": notification_request}


class PubSubBackend:
    """Opens a channel. Raises ``ConfigError`` where a topic or subscription is missing, and ``Unavailable``."""

    def __init__(self, config: Config, clock: Clock, chance: random.Random) -> None:
        self._config = config
        self._clock = clock
        self._chance = chance
        self._stack = AsyncExitStack()
        self._publishers: dict[str, Publisher] = {}
        self._outbox: PokeOutbox | None = None

    async def __aenter__(self) -> Self:
        channel = await open_channel(PUBSUB, self._config)
        self._stack.push_async_callback(channel.close)
        self._api = PubSubApi(channel, project(self._config), self._chance)
        try:
            await check_topics(self._api, self._config)
            for topic in self._topics():
                await self._open_publisher(topic)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    async def _open_publisher(self, topic: str) -> None:
        ingress = self._config.ingress
        calls = SHARED_KEY_CALLS if topic == ingress.topic and ingress.ordering_shards else CALLS
        publisher = Publisher(self._api, self._api.topic(topic), calls)
        self._publishers[topic] = await self._stack.enter_async_context(publisher)

    def _topics(self) -> list[str]:
        ingress = self._config.ingress
        return [ingress.topic, ingress.dead_letter_topic, self._config.push.topic]

    def producer(self) -> PubSubIngressProducer:
        ingress = self._config.ingress
        publisher = self._publishers[ingress.topic]
        return PubSubIngressProducer(self._api, publisher, self._api.topic(ingress.topic), ingress.ordering_shards)

    def consumer(self) -> PubSubIngressConsumer:
        return PubSubIngressConsumer(self._api, self._config, self._clock, self._chance)

    def push_notifier(self) -> PubSubPushNotifier:
        return PubSubPushNotifier(self._publishers[self._config.push.topic], FORMS[self._config.push.format])

    def dead_letters(self) -> PubSubDeadLetters:
        return PubSubDeadLetters(self._publishers[self._config.ingress.dead_letter_topic])

    def dead_letter_queue(self) -> PubSubDeadLetterQueue:
        subscription = self._api.subscription(dead_letter_subscription(self._config))
        return PubSubDeadLetterQueue(self._api, subscription, self._clock)

    def poke_bus(self, metrics: Metrics) -> PubSubPokeBus:
        topics = PokeTopics(self._api, self._config.online.poke_topic, self._clock, self._chance)
        if self._outbox is None:
            self._outbox = PokeOutbox(self._api, topics, metrics)
            self._stack.push_async_callback(self._outbox.aclose)
        return PubSubPokeBus(self._api, topics, self._outbox, self._chance, metrics)
