"""Finds out which server is the master; this process uses no connection to any other one.

Each new connection first asks its server for its role and reign. There are four cases:

1. The server is a replica: refuse the connection.
2. It is the known master: use the connection.
3. It is a new master: from here on it is the known one. Close all connections to the old one, even those in use; their
   commands go to the new master.
4. It is an old master that another has replaced, and does not know it yet, since it was frozen or cut off. Refuse the
   connection, unless its successor has been silent for ``SILENCE_SECONDS``: then an operator has gone back to it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary, WeakSet

from msgspec import Struct
from redis.exceptions import ConnectionError as RedisConnectionError

from router import logs
from router.backends.redis.internals import Connection

LOG = logs.logger(__name__)
SILENCE_SECONDS = 60.0
FRESH_SECONDS = 1.0
"""A refusal on a connection that is younger than this starts no new search, which would find the same server."""
_FIELD = re.compile(rb"^(role|run_id|master_replid2?):(\w+)\r?$", re.MULTILINE)
_NONE = "0" * 40
REMEMBERED = 100


class NoMaster(RedisConnectionError):
    """The server is not a master, or another one has taken over from it."""


class Server(Struct, frozen=True):
    """What a server says about itself; a field is empty if it does not say."""

    role: str
    run: str
    """Run id; changes when the server starts."""
    reign: str
    """Replication id; changes when the server starts, and when it becomes the master."""
    before: str
    """The reign before this one."""


class _Opened(Struct, frozen=True):
    era: int
    run: str
    at: float
    """By the clock of the event loop."""


class Masters:
    """What this process knows of the master. State: how many times it gave up all connections (``_era``); the master;
    the reigns that have ended; when the master last replied; which connections lead where, and which are in use."""

    def __init__(self) -> None:
        self._era = 0
        self._server: Server | None = None
        self._replaced: deque[str] = deque(maxlen=REMEMBERED)
        self._answered_at = -SILENCE_SECONDS
        self._opened: WeakKeyDictionary[Connection, _Opened] = WeakKeyDictionary()
        self._used: set[Connection] = set()
        self._listening: WeakSet[Connection] = WeakSet()

    async def meet(self, connection: Connection) -> None:
        """Check the server of ``connection``; redis-py calls this when it has opened one. Raises ``NoMaster``."""
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

    async def meet_listening(self, connection: Connection) -> None:
        """The same for the connection of a subscription, which stays open when other connections are given up."""
        await self.meet(connection)
        self._listening.add(connection)

    @contextmanager
    def using(self, connection: Connection) -> Iterator[None]:
        """Count ``connection`` as in use in this block."""
        self._used.add(connection)
        try:
            yield
        finally:
            self._used.discard(connection)

    def answered(self, connection: Connection) -> None:
        """Record that the server of ``connection`` has replied. Raises ``NoMaster`` if it is no longer the master."""
        opened = self._opened.get(connection)
        if self._server is None or opened is None or opened.run != self._server.run:
            raise NoMaster("this Redis answered when another one was the master")
        self._answered_at = _now()

    def is_left(self, connection: Connection) -> bool:
        """Whether all connections were given up after ``connection`` was opened."""
        opened = self._opened.get(connection)
        return opened is None or opened.era != self._era

    def is_fresh(self, connection: Connection) -> bool:
        """Whether it was opened within ``FRESH_SECONDS``, so that another one would lead to the same server."""
        return _now() - self._opened[connection].at < FRESH_SECONDS

    async def leave(self) -> None:
        """Give up all connections: close idle ones now, and the others when their replies have come."""
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

    async def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            # A frozen server would not answer.
            await connection.disconnect(nowait=True)


def _server(info: bytes) -> Server:
    told = {name.decode(): value.decode() for name, value in _FIELD.findall(info)}
    names = ("role", "run_id", "master_replid", "master_replid2")
    return Server(*(told.get(name, "") for name in names))


def _now() -> float:
    return asyncio.get_running_loop().time()
