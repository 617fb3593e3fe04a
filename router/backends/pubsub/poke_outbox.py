"""Sends pokes, each node's to its own topic. No caller waits for a poke, and no node's pokes wait for another
node's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import grpc
import msgspec

from router.backends.pubsub.poke_topics import PokeTopics
from router.backends.pubsub.wire import PubSubApi, PubsubMessage, status
from router.errors import RouterError
from router.metrics import Metrics

USERS = 500
"""Users in one message."""
WAITING_USERS = 20_000
"""Users whose pokes wait for one node; pokes beyond them are left to the sweeper."""
CALLS = 64
"""Requests under way at once."""
NODE_CALLS = 4
"""Requests for one node, of these: a topic that does not answer delays only its own node."""


class PokeOutbox:
    """State: the pokes that wait, by node (``_waiting``), and the number of calls under way (``_calls``). A node
    without either takes no memory."""

    def __init__(self, api: PubSubApi, topics: PokeTopics, metrics: Metrics) -> None:
        self._api = api
        self._topics = topics
        self._metrics = metrics
        self._waiting: dict[str, dict[str, None]] = {}
        self._calls: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: asyncio.Handle | None = None

    def add(self, pokes: Sequence[tuple[str, str]]) -> None:
        """Send these (node, user) pairs together at the end of this turn of the loop; a user who waits already is poked
        once."""
        for node, user in pokes:
            own = self._waiting.setdefault(node, {})
            if len(own) < WAITING_USERS:
                own[user] = None
            elif user not in own:
                self._metrics.poked("left", 1)
        self._send_soon()

    async def aclose(self) -> None:
        """Give up all pokes that wait or are under way: the sweeper repeats them."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send_soon(self) -> None:
        if self._turn is None and self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._turn = None
        for node in list(self._waiting):
            while node in self._waiting and self._calls[node] < NODE_CALLS and len(self._tasks) < CALLS:
                self._start(node, self._take(node))

    def _take(self, node: str) -> list[str]:
        own = self._waiting.pop(node)
        users = list(own)
        if rest := users[USERS:]:
            self._waiting[node] = dict.fromkeys(rest)  # behind the other nodes
        return users[:USERS]

    def _start(self, node: str, users: list[str]) -> None:
        task = asyncio.get_running_loop().create_task(self._publish(node, users))
        self._calls[node] += 1
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(node, done))

    def _ended(self, node: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._calls[node] -= 1
        if not self._calls[node]:
            del self._calls[node]
        self._send_soon()
        if not task.cancelled():
            task.result()

    async def _publish(self, node: str, users: list[str]) -> None:
        try:
            await self._api.publish(self._topics.topic(node), [PubsubMessage(data=msgspec.json.encode(users))])
        except RouterError as error:
            gone = status(error) is grpc.StatusCode.NOT_FOUND
            self._metrics.poked("gone" if gone else "unsent", len(users))
