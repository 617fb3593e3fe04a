"""Pub/Sub as ingress, for push commands and dead letters; the rest is embedded."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.resources import dead_letter_subscription, needs
from router.backends.pubsub.wire import PubSubApi, PubsubMessage
from router.config import Config, Embedded, Google, Ingress, Limits, Online, Push
from router.factory import Factory
from tests.support.stores import CAP, Durability

PUSH_READER = "push-reader"
"""A subscription of the push topic, as the notification service has one."""


class PubSubStores:
    """``Stores`` in a project of their own, which needs ``PUBSUB_EMULATOR_HOST`` in the environment."""

    def __init__(self, data_dir: Path, api: PubSubApi, project: str) -> None:
        self.api = api
        self.project = project
        self.shards = 4
        self.pulls = 0
        self._data_dir = data_dir
        self._read: dict[str, list[Any]] = {}

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        return Config(
            embedded=Embedded(data_dir=self._data_dir),
            google=Google(project=self.project),
            ingress=Ingress(
                kind="pubsub",
                idempotency_secret=SecretStr("the same on all nodes"),
                ordering_shards=self.shards,
                pulls=self.pulls,
            ),
            push=Push(kind="pubsub"),
            limits=Limits(queue_messages=cap),
            online=Online(durability=durability),
        )

    async def set_up(self, config: Config | None = None) -> None:
        """Make the topics and subscriptions, as ``router setup`` does."""
        for need in needs(self.api, config or self.config()):
            await need.make()
        reader = self.api.subscription(PUSH_READER)
        topic = self.api.topic(self.config().push.topic)
        await self.api.create("create_subscription", reader, name=reader, topic=topic, enable_message_ordering=True)

    async def publish_raw(self, body: bytes, **attributes: str) -> None:
        """Publish to the ingress topic as another system does."""
        await self.api.publish(self.api.topic("ingress-topic"), [PubsubMessage(data=body, attributes=attributes)])

    async def commands(self) -> Sequence[Any]:
        """All push commands so far, as ``PubsubMessage``."""
        return await self._drain(PUSH_READER)

    async def dead_letters(self) -> Sequence[Any]:
        """All dead letters so far, as ``PubsubMessage``."""
        return await self._drain(dead_letter_subscription(self.config()))

    async def pushed(self, factory: Factory) -> list[str]:
        return [command.attributes["messageId"] for command in await self.commands()]

    async def letters(self, factory: Factory) -> list[tuple[str, str]]:
        return [(letter.attributes["id"], letter.attributes["reason"]) for letter in await self.dead_letters()]

    async def _drain(self, name: str) -> Sequence[Any]:
        """All that ``name`` has handed out so far; the emulator answers a pull at once where there is something."""
        subscription, read = self.api.subscription(name), self._read.setdefault(name, [])
        while received := (await self._pull(subscription)):
            read += [each.message for each in received]
            await self.api.acknowledge(subscription, [each.ack_id for each in received])
        return read

    async def _pull(self, subscription: str) -> Sequence[Any]:
        response = await self.api.call(
            "pull", subscription, subscription=subscription, max_messages=1000, return_immediately=True
        )
        received: Sequence[Any] = response.received_messages
        return received


@asynccontextmanager
async def pubsub_stores(data_dir: Path) -> AsyncIterator[PubSubStores]:
    """Set up, in a project that no other test uses."""
    project = f"test-{secrets.token_hex(8)}"
    async with await open_channel(PUBSUB, Config()) as channel:
        stores = PubSubStores(data_dir, PubSubApi(channel, project, random.Random(1)), project)
        await stores.set_up()
        yield stores
