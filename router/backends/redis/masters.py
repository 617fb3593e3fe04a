"""Which server is the master, as the connections of this process find it out; none is used that leads to another one.

Each connection asks its server who it is before anything else. There are four cases:

1. A server is a replica: the connection is refused.
2. It is the one that is known: the connection is used.
3. It is another one: that is the master from here on, and all connections to the one before are closed, those in use
   too. What waits for an answer there is asked of the new master.
4. It is one that another has taken over from: it was frozen or cut off, and does not know of that yet. The connection
   is refused, unless its successor has been silent for ``SILENCE_SECONDS``: then somebody has gone back to it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from msgspec import Struct
from redis.exceptions import ConnectionError as RedisConnectionError

from router import logs

LOG = logs.logger(__name__)
SILENCE_SECONDS = 60.0
FRESH_SECONDS = 1.0
"""Whoever was asked for the master so lately is not asked again since that master refuses writes."""
_FIELD = re.compile(rb"^(role|run_id|master_replid2?):(\w+)\r?$", re.MULTILINE)
_NONE = "0" * 40
REMEMBERED = 100


class NoMaster(RedisConnectionError):
    """The server is not a master, or another one has taken over from it."""


class Server(Struct, frozen=True):
    """What a server says of itself; what it does not tell is empty."""

    role: str
    run: str
    """Changes when it starts."""
    reign: str
    """The id of its replication: changes when it starts, and when it becomes the master."""
    before: str
    """The reign that it took over from."""


class _Opened(Struct, frozen=True):
    era: int
    run: str
    at: float
    """By the clock of the event loop."""


class Masters:
    """What is known of the master. State: ``_era``, how many times connections were given up; the server that was met
    last; the reigns that others have taken over from; when it answered last; who is connected to whom, and in use."""

    def __init__(self) -> None:
        self._era = 0
        self._server: Server | None = None
        self._replaced: deque[str] = deque(maxlen=REMEMBERED)
        self._answered_at = -SILENCE_SECONDS
        self._opened: WeakKeyDictionary[Any, _Opened] = WeakKeyDictionary()
        self._used: set[Any] = set()
        self._listening: WeakSet[Any] = WeakSet()

    async def meet(self, connection: Any) -> None:
        """What the library calls when it has opened ``connection``; raises ``NoMaster``."""
        self._opened.pop(connection, None)
        await connection.on_connect()
        await connection.send_command("INFO", "server", "replication")
        server, now = _server(await connection.read_response()), _now()
        self._check(server, now)
        if self._server is not None and server.run != self._server.run:
            await self._change(self._server)
        if server.before not in ("", _NONE) and server.before not in self._replaced:
            self._replaced.append(server.before)
        self._server, self._answered_at = server, now
        self._opened[connection] = _Opened(self._era, server.run, now)

    async def meet_listening(self, connection: Any) -> None:
        """The same for the connection of a subscription, which an outage of others does not end."""
        await self.meet(connection)
        self._listening.add(connection)

    @contextmanager
    def using(self, connection: Any) -> Iterator[None]:
        """``connection`` is not idle in here."""
        self._used.add(connection)
        try:
            yield
        finally:
            self._used.discard(connection)

    def answered(self, connection: Any) -> None:
        """The server of ``connection`` has answered; raises ``NoMaster`` where another is the master by now."""
        opened = self._opened.get(connection)
        if self._server is None or opened is None or opened.run != self._server.run:
            raise NoMaster("this Redis answered when another one was the master")
        self._answered_at = _now()

    def is_left(self, connection: Any) -> bool:
        """Whether ``connection`` was given up after it was opened."""
        opened = self._opened.get(connection)
        return opened is None or opened.era != self._era

    def is_fresh(self, connection: Any) -> bool:
        """Whether it was opened so lately that another one would lead to the same server."""
        return _now() - self._opened[connection].at < FRESH_SECONDS

    async def leave(self) -> None:
        """Give up all connections: at once what is idle, the rest when its answers are there."""
        self._era += 1
        await self._close([one for one in self._opened if one not in self._used and one not in self._listening])

    def _check(self, server: Server, now: float) -> None:
        if server.role not in ("master", ""):
            raise NoMaster("this Redis is a read only replica")
        known = self._server is not None and server.run == self._server.run
        if server.reign in self._replaced and not known and now - self._answered_at < SILENCE_SECONDS:
            raise NoMaster("another Redis has taken over from this one")

    async def _change(self, before: Server) -> None:
        LOG.warning("another Redis is the master, or it was restarted; closing the old connections")
        if before.reign and before.reign not in self._replaced:
            self._replaced.append(before.reign)
        self._era += 1
        await self._close(list(self._opened))

    async def _close(self, connections: list[Any]) -> None:
        for connection in connections:
            # A frozen server would not answer a farewell.
            await connection.disconnect(nowait=True)


def _server(info: bytes) -> Server:
    told = {name.decode(): value.decode() for name, value in _FIELD.findall(info)}
    names = ("role", "run_id", "master_replid", "master_replid2")
    return Server(*(told.get(name, "") for name in names))


def _now() -> float:
    return asyncio.get_running_loop().time()
