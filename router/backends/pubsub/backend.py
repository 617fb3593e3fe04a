"""All Pub/Sub components over one channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import final

from router.backends.base import IngressBackend, PokesBackend, PushBackend, Tools
from router.backends.google.channels import PUBSUB, open_channel, project
from router.backends.pubsub import checks, resources
from router.backends.pubsub.bodies import notification_request, push_command
from router.backends.pubsub.ingress import PubSubIngressConsumer, PubSubIngressProducer
from router.backends.pubsub.leases import Leases
from router.backends.pubsub.poke_outbox import PokeOutbox
from router.backends.pubsub.poke_topics import PokeTopics
from router.backends.pubsub.pokes import PubSubPokeBus
from router.backends.pubsub.publisher import CALLS, SHARED_KEY_CALLS, Publisher
from router.backends.pubsub.push import PubSubDeadLetterQueue, PubSubDeadLetters, PubSubOutbox, PubSubPushNotifier
from router.backends.pubsub.resources import LEASE_SECONDS, check_topics, dead_letter_subscription
from router.backends.pubsub.wire import PubSubApi
from router.config import Config
from router.config.roles import Role
from router.findings import WITHOUT, Check
from router.needs import Need

FORMS = {"command": push_command, "notification-request": notification_request}


@final
class PubSubBackend(IngressBackend, PokesBackend, PushBackend):
    """Opens a channel. Raises ``ConfigError`` where a topic or subscription is missing, and ``Unavailable``."""

    name = "pubsub"
    redelivery_seconds = float(LEASE_SECONDS)
    fix = "check google.project, the credentials and the network, and run `router setup`"

    def __init__(self, config: Config, tools: Tools) -> None:
        super().__init__(config, tools)
        self._publishers: dict[str, Publisher] = {}
        self._outbox: PokeOutbox | None = None

    async def _open(self, stack: AsyncExitStack) -> None:
        channel = await open_channel(PUBSUB, self._config)
        stack.push_async_callback(channel.close)
        self._api = PubSubApi(channel, project(self._config), self._chance)
        await check_topics(self._api, self._config)
        for topic in self._topics():
            await stack.enter_async_context(self._publisher(topic))

    def checks(self) -> list[Check]:
        look = partial(checks.look, self._config, self._chance)
        return [Check("pubsub.answers", look, WITHOUT[Role.INGRESS], f"ingress.kind is pubsub: {self.fix}")]

    def address(self, role: Role) -> str:
        ingress = self._config.ingress
        part = {
            Role.INGRESS: f"topic {ingress.topic}, subscription {ingress.subscription}",
            Role.PUSH: f"topic {self._config.push.topic}",
            Role.DEAD_LETTERS: f"topic {ingress.dead_letter_topic}",
        }
        return PUBSUB.address(self._config, part[role])

    def untraceable(self) -> Mapping[Role, str]:
        ingress = self._config.ingress
        why = {
            Role.INGRESS: f"the subscription {ingress.subscription} cannot be searched: a message that is not routed "
            "yet may wait there, or be in flight",
            Role.DEAD_LETTERS: f"the topic {ingress.dead_letter_topic} cannot be searched: if the message is a dead "
            "letter, `router dead-letters` lists it",
            Role.PUSH: f"the topic {self._config.push.topic} does not tell whether a push command was taken",
        }
        return {role: text for role, text in why.items() if role in self.roles}

    @asynccontextmanager
    async def needs(self) -> AsyncIterator[list[Need]]:
        async with await open_channel(PUBSUB, self._config) as channel:
            yield resources.needs(PubSubApi(channel, project(self._config), self._chance), self._config)

    def _publisher(self, topic: str) -> Publisher:
        ingress = self._config.ingress
        calls = SHARED_KEY_CALLS if topic == ingress.topic and ingress.ordering_shards else CALLS
        self._publishers[topic] = Publisher(self._api, self._api.topic(topic), calls)
        return self._publishers[topic]

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

    async def outbox(self, subscription: str = "") -> PubSubOutbox:
        named = self._api.subscription(subscription) if subscription else ""
        outbox = PubSubOutbox(self._api, self._api.topic(self._config.push.topic), named)
        await outbox.check()
        self._stack.push_async_callback(outbox.hand_back)
        return outbox

    def beyond_reach(self) -> list[str]:
        ingress, push = self._config.ingress, self._config.push
        found = []
        if Role.INGRESS in self.roles:
            found.append(f"messages in {ingress.topic} that no pipeline has received yet")
        if Role.PUSH in self.roles:
            found.append(f"push commands in the subscriptions of {push.topic}")
        return found

    def dead_letters(self) -> PubSubDeadLetters:
        return PubSubDeadLetters(self._publishers[self._config.ingress.dead_letter_topic])

    def dead_letter_queue(self) -> PubSubDeadLetterQueue:
        subscription = self._api.subscription(dead_letter_subscription(self._config))
        return PubSubDeadLetterQueue(Leases(self._api, subscription), self._clock)

    def letters_elsewhere(self) -> str:
        topic = self._config.ingress.dead_letter_topic
        return f'ingress.kind = "pubsub": nobody counts the dead letters in {topic}; `router dead-letters` shows them'

    def poke_bus(self) -> PubSubPokeBus:
        topics = PokeTopics(self._api, self._config.online.poke_topic, self._clock, self._chance)
        if self._outbox is None:
            self._outbox = PokeOutbox(self._api, topics, self._metrics)
            self._stack.push_async_callback(self._outbox.aclose)
        return PubSubPokeBus(self._api, topics, self._outbox, self._chance, self._metrics)
