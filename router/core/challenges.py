"""Asking whether a user's sockets live, when they hold as many as they may and one more comes.

A socket may be half open, and the process that held it may be dead, while its lease runs. So the newcomer's node reads
which connections there are, and asks the nodes that hold them to ping that user's sockets at once. They renew the
leases of those that answer. After ``WAIT_SECONDS`` the newcomer replaces each connection whose lease was not renewed
since: a dead process renews none, so nobody has to know that it is dead, and no answer has to find its way back.
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
"""Stands before the user in an entry on the poke bus that asks whether their sockets live. No URN begins with it, so a
node that does not know it pokes nobody."""
ANSWER_SECONDS = 1.5
"""A peer that has not answered a ping by then is taken for gone."""
STEP_SECONDS = 0.1
"""How often a node looks whether all of its peers have answered."""
WAIT_SECONDS = 3.0
"""A node that was asked has renewed the leases of the living by then."""
PAUSE_SECONDS = 5.0
"""A user is asked about once in this time by one node, however often they come."""


class _Challenge(Struct, eq=False):
    began: float
    over: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    held: Sequence[Connection] | None = None


class Challenges:
    """The challenges of one node. Its state: those that are under way or were within ``PAUSE_SECONDS``, by user."""

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
        """``prove`` does what a node does that is asked about a user, for the sockets of this one."""
        self._presence = presence
        self._pokes = pokes
        self._prove = prove
        self._node = node
        self._limit = connections_per_user
        self._clock = clock
        self._tasks = tasks
        self._challenges: dict[str, _Challenge] = {}

    async def ask(self, user: str) -> Sequence[Connection] | None:
        """The connections of ``user`` as they were before their nodes were asked; ``PresenceCache.connect`` replaces
        those that were not renewed since. ``None``: a challenge has just been, or failed, or too many wait for it."""
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
                break  # they stand in the order in which they began
            del self._challenges[other]
        self._challenges.pop(user, None)
        challenge = self._challenges[user] = _Challenge(self._clock.monotonic())
        # A task of its own: whoever came first may leave, and others wait too.
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
            return  # what failed is told of where it was called; the newcomer is refused
        finally:
            challenge.over.set()

    async def _ask_nodes(self, user: str, nodes: Sequence[str]) -> None:
        if nodes:
            await self._pokes.publish([(node, MARK + user) for node in nodes])
            await self._clock.sleep(WAIT_SECONDS)
