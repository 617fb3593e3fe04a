"""The topic of each node and its subscription: made when the node begins to listen, deleted when it ends.

A node that dies leaves both. Its subscription expires after a day, but a topic never does. So each node that starts
looks at some topics of other nodes, and deletes old ones that have no subscription any more: they do not accumulate,
since the process that replaces a dead one deletes them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import grpc

from router import logs
from router.backends.pubsub.wire import PubSubApi, status
from router.clock import MICROSECONDS, Clock
from router.errors import RouterError

LOG = logs.logger(__name__)
LEASE_SECONDS = 10
RETENTION_SECONDS = 600
"""The service's minimum; an old poke is worth nothing."""
EXPIRE_SECONDS = 86_400
"""The service's minimum: after this it deletes a subscription that nobody reads."""
DELETE_SECONDS = 2.0
BEGUN = "router-node-begun"
"""The label of a node's topic: when it was made, in seconds since 1970. No other topic is ever deleted."""
OLD_SECONDS = 2 * EXPIRE_SECONDS
"""Younger topics are kept: that of a node that starts has no subscription yet, and clocks may differ."""
LOOKED_AT = 20
"""Old topics that one node looks at, chosen at random, to keep within the quota of administrative calls. If there are
more, other nodes look at them."""
PAGE = 1000


class PokeTopics:
    """Topics whose names begin with ``prefix``, in one project."""

    def __init__(self, api: PubSubApi, prefix: str, clock: Clock, chance: random.Random) -> None:
        self._api = api
        self._prefix = prefix
        self._clock = clock
        self._chance = chance

    def topic(self, node: str) -> str:
        return self._api.topic(f"{self._prefix}-{node}")

    def subscription(self, node: str) -> str:
        return self._api.subscription(f"{self._prefix}-{node}")

    async def make(self, node: str) -> None:
        """Make what is missing; raises ``RouterError``."""
        topic, subscription = self.topic(node), self.subscription(node)
        if not await self.leads(node):
            await self._delete("subscription", subscription)  # its topic was deleted: it would never receive anything
        await self._api.create("create_topic", topic, name=topic, labels={BEGUN: str(self._now())})
        await self._api.create(
            "create_subscription",
            subscription,
            name=subscription,
            topic=topic,
            ack_deadline_seconds=LEASE_SECONDS,
            message_retention_duration={"seconds": RETENTION_SECONDS},
            expiration_policy={"ttl": {"seconds": EXPIRE_SECONDS}},
        )

    async def leads(self, node: str) -> bool:
        """Whether what is published for ``node`` reaches its subscription; raises ``RouterError``."""
        found = await self._api.get("subscription", self.subscription(node))
        return found is not None and found.topic == self.topic(node)

    async def delete(self, node: str) -> None:
        """Delete both, as the node ends. What cannot be deleted is left to nodes that start later."""
        gone = (("subscription", self.subscription(node)), ("topic", self.topic(node)))
        try:
            await asyncio.gather(*(self._delete(kind, name) for kind, name in gone))
        except RouterError as error:
            LOG.warning("cannot delete the topic of this node; a later node deletes it", node=node, reason=str(error))

    async def collect(self) -> None:
        """Delete topics of nodes that died, ``LOOKED_AT`` at most."""
        try:
            old = [name async for name in self._old()]
            for name in self._chance.sample(old, min(LOOKED_AT, len(old))):
                if not await self._is_read(name):
                    await self._delete("topic", name)
                    LOG.info("deleted the topic of a node that died", topic=name)
        except RouterError as error:
            LOG.warning("cannot delete topics of nodes that died; a later node deletes them", reason=str(error))

    async def _old(self) -> AsyncIterator[str]:
        begin, until, token = self._api.topic(f"{self._prefix}-"), self._now() - OLD_SECONDS, ""
        while True:
            page = await self._api.call(
                "list_topics", self._api.project, project=self._api.project, page_size=PAGE, page_token=token
            )
            for topic in page.topics:
                begun = topic.labels.get(BEGUN, "")
                if topic.name.startswith(begin) and begun.isdecimal() and int(begun) < until:
                    yield topic.name
            token = page.next_page_token
            if not token:
                return

    async def _is_read(self, topic: str) -> bool:
        try:
            found = await self._api.call("list_topic_subscriptions", topic, topic=topic)
        except RouterError as error:
            if status(error) is grpc.StatusCode.NOT_FOUND:
                return True  # another node has just deleted it
            raise
        return bool(found.subscriptions)

    async def _delete(self, kind: str, name: str) -> None:
        """Delete it; one that is gone already is not an error."""
        fields: dict[str, str] = {kind: name}
        try:
            await self._api.call(f"delete_{kind}", name, seconds=DELETE_SECONDS, repeated=frozenset(), **fields)
        except RouterError as error:
            if status(error) is not grpc.StatusCode.NOT_FOUND:
                raise

    def _now(self) -> int:
        return self._clock.now() // MICROSECONDS
