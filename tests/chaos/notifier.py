"""``python -m tests.chaos.notifier``: prints the push commands and dead letters of Pub/Sub, and takes each once it is
printed. One JSON object a line, as ``router outbox --json`` and ``router dead-letters --json`` have them.

With ``subscribe``, it makes its subscription and ends: what is published before there is one is not kept for it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.resources import dead_letter_subscription
from router.backends.pubsub.wire import PubSubApi
from router.clock import SystemClock
from router.config import Config, load
from router.errors import Unavailable

SUBSCRIPTION = "notifier"
PAGE, PULL_SECONDS, REST_SECONDS = 1000, 5.0, 0.5


async def main(config: Config, *, subscribe: bool) -> None:
    """Until it is ended, or until it has subscribed."""
    async with await open_channel(PUBSUB, config) as channel, asyncio.TaskGroup() as group:
        api = PubSubApi(channel, config.google.project or "", random.Random())
        name, topic = api.subscription(SUBSCRIPTION), api.topic(config.push.topic)
        if subscribe:
            await api.create("create_subscription", name, name=name, topic=topic)
            return
        group.create_task(_take(api, name, {"messageId": "id", "recipientId": "recipient"}))
        letters = api.subscription(dead_letter_subscription(config))
        group.create_task(_take(api, letters, {name: name for name in ("id", "recipient", "reason")}))


async def _take(api: PubSubApi, subscription: str, names: dict[str, str]) -> None:
    """Print ``names`` (attributes, and what they are called in a line) of all that comes."""
    clock = SystemClock()
    while True:
        try:
            received = await api.pull(subscription, PAGE, PULL_SECONDS)
            for each in received:
                found = {word: each.message.attributes.get(name, "") for name, word in names.items()}
                sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()
            if received:
                await api.acknowledge(subscription, [each.ack_id for each in received])
        except Unavailable:
            await clock.sleep(REST_SECONDS)  # it stands still just now; what is not acknowledged comes again


if __name__ == "__main__":
    asyncio.run(main(load(), subscribe=sys.argv[1:] == ["subscribe"]))
