"""What ``router setup`` makes for Pub/Sub."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.backends.google.channels import PUBSUB, open_channel, project
from router.backends.needs import Need
from router.backends.pubsub import resources
from router.backends.pubsub.wire import PubSubApi
from router.config import Config


@asynccontextmanager
async def needs(config: Config) -> AsyncIterator[list[Need]]:
    """The topics and subscriptions, with a channel that is open as long as the block lasts."""
    async with await open_channel(PUBSUB, config) as channel:
        yield resources.needs(PubSubApi(channel, project(config), random.Random()), config)  # noqa: S311 - jitter
