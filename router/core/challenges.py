"""Finds out which sockets of a user still answer, when the user is at the limit of connections and opens one more.

A lease may still run although its socket is half open, or its process is dead. So the node of the new connection reads
the user's connections, and asks the nodes that hold them to ping these sockets at once. Those nodes renew the leases of
sockets that answer. After ``WAIT_SECONDS`` the new connection replaces each connection whose lease was not renewed. The
leases are the answer: no node has to reply, and none has to know that a process is dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct, field

from router.clock import Clock, Tasks
from router.errors import RouterError
from router.interfaces import PokeBus, PresenceCache
from router.messages import Connection

MARK = "?"
"""Prefix of the user in an entry of the poke bus that asks whether their sockets answer. No URN begins with it, so a
node of an earlier version pokes nobody."""
ANSWER_SECONDS = 1.5
"""A peer that does not answer a ping within this time counts as gone."""
STEP_SECONDS = 0.1
"""How often a node checks whether all of its peers have answered."""
WAIT_SECONDS = 3.0
"""How long the new connection waits: within this time the nodes have renewed the leases of sockets that answer."""
PAUSE_SECONDS = 5.0
"""Least time between two challenges of one user by one node, however often the user connects."""


class _Challenge(Struct, eq=False):
    began: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    held: Sequence[Connection] | None = None


class Challenges:
    """The challenges of one node. Its state: by user, those that are running or began within ``PAUSE_SECONDS``."""

    def __init__(
        self,
        presence: PresenceCache,
        pokes: PokeBus,
        prove: Callable[[str], Awaitable[None]],
        *,
        node: str,
        connections_per_user: int,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        """``prove`` pings the sockets of a user that this node holds, and renews the leases of those that answer."""
        self._presence = presence
        self._pokes = pokes
        self._prove = prove
        self._node = node
        self._limit = connections_per_user
        self._clock = clock
        self._tasks = tasks
        self._challenges: dict[str, _Challenge] = {}

    async def ask(self, user: str) -> Sequence[Connection] | None:
        """Challenge the sockets of ``user``. Returns their connections as they were before; ``PresenceCache.connect``
        replaces those that were not renewed since. ``None`` if the challenge fails, if one has just ended, or if too
        many new connections wait for it: the caller then refuses the new connection."""
        challenge = self._challenges.get(user)
        if challenge is None or self._is_past(challenge):
            challenge = self._begin(user)
        elif challenge.over.is_set() or challenge.waiting >= self._limit:
            return None
        challenge.waiting += 1
        await challenge.over.wait()
        return challenge.held

    def _begin(self, user: str) -> _Challenge:
        for other in list(self._challenges):
            if not self._is_past(self._challenges[other]):
                break  # the dict is in the order in which they began
            del self._challenges[other]
        self._challenges.pop(user, None)
        challenge = self._challenges[user] = _Challenge(self._clock.monotonic())
        # A task of its own: others wait for it even if the connection that started it goes away.
        self._tasks.spawn(self._challenge(user, challenge), "challenge")
        return challenge

    def _is_past(self, challenge: _Challenge) -> bool:
        return challenge.over.is_set() and self._clock.monotonic() - challenge.began >= PAUSE_SECONDS

    async def _challenge(self, user: str, challenge: _Challenge) -> None:
        try:
            held = await self._presence.connections(user)
            elsewhere = sorted({connection.node for connection in held} - {self._node})
            await asyncio.gather(self._prove(user), self._ask_nodes(user, elsewhere))
            challenge.held = held
        except RouterError:
            return  # `core.dependencies` logs it; `held` stays None, and the new connection is refused
        finally:
            challenge.over.set()

    async def _ask_nodes(self, user: str, nodes: Sequence[str]) -> None:
        if nodes:
            await self._pokes.publish([(node, MARK + user) for node in nodes])
            await self._clock.sleep(WAIT_SECONDS)
