"""Sends the batches of several callers together, over the connections of one pool.

Batches of one turn of the event loop go out in one write and cost one round trip; so do batches that waited for a free
connection. No batch is delayed to collect more: a single one is sent at the end of the turn. redis-py's own pipeline
packs and reads in Python, with a timer for each reply; that costs several times what a small script costs the server.

After a failover, connections to the old master may stay open although its name, or the sentinels, lead to the new one.
The old master's refusal shows this, and so does an outage. Then the exchange closes all connections that were opened
before it, and each new connection finds out which server is the master (``masters``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

import hiredis
from msgspec import Struct
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from router import logs
from router.backends.redis.error_translation import FOREIGN, no_master
from router.backends.redis.internals import Connection, Pool
from router.backends.redis.masters import Masters
from router.backends.redis.scripts import Command

LOG = logs.logger(__name__)
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # it takes any length, not one
JOINED_BYTES = 1024 * 1024
"""A batch with more bytes than this goes out alone, so that no other waits for it."""


class _Batch(Struct, eq=False):
    packed: bytes
    count: int
    """Commands in it; each has one reply."""
    replies: asyncio.Future[list[Any]]


class Exchange:
    """Uses at most ``most`` connections at once; other batches wait."""

    def __init__(
        self,
        pool: ConnectionPool,
        most: int,
        timeout_seconds: float,
        masters: Masters,
        left: Callable[[], Awaitable[None]],
    ) -> None:
        """The caller closes ``pool``. Its connections call ``masters.meet`` when they open, and have no read time-out
        of their own. The exchange calls ``left`` when it gives up a server that is not a master.
        """
        self._pool = cast(Pool, pool)
        self._most = most
        self._timeout_seconds = timeout_seconds
        self._masters = masters
        self._left = left
        self._refused = False
        """Whether the last server to reply was not a master; logged once, however many replies say so."""
        self._waiting: deque[_Batch] = deque()
        self._idle: list[Connection] = []
        """Open ones, kept from batch to batch: for the pool to take one back and give it out is a third of what a batch
        costs here (75 µs of a core with it, 50 µs without)."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._turn: asyncio.Handle | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each of ``commands``, which run in this order; a refusal is a ``ResponseError`` among them.

        Raises redis-py's error if a server cannot be reached, and ``TimeoutError`` if it does not reply in time. If the
        caller is cancelled, commands that were sent run nevertheless.
        """
        packed = b"".join([_pack(command) for command in commands])
        batch = _Batch(packed, len(commands), asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._start_soon()
        return await batch.replies

    async def aclose(self) -> None:
        """Cancel the batches that were sent and those that wait."""
        self._most = 0
        if self._turn is not None:
            self._turn.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        _fail(self._waiting)

    def _start_soon(self) -> None:
        if self._turn is None and len(self._under_way) < self._most:
            self._turn = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._turn = None
        while self._waiting and len(self._under_way) < self._most:
            if batches := self._take():
                task = asyncio.get_running_loop().create_task(self._run(batches))
                self._under_way.add(task)
                task.add_done_callback(partial(self._ended, batches))

    def _take(self) -> list[_Batch]:
        """The batches to send next, without those whose callers were cancelled."""
        taken, size = list[_Batch](), 0
        while self._waiting and (not taken or size + len(self._waiting[0].packed) <= JOINED_BYTES):
            batch = self._waiting.popleft()
            if not batch.replies.done():
                taken.append(batch)
                size += len(batch.packed)
        return taken

    def _ended(self, batches: Sequence[_Batch], task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        _fail(batches)  # here, since a task that is cancelled before its first step runs nothing of its own
        if self._waiting:
            self._start_soon()

    async def _run(self, batches: Sequence[_Batch]) -> None:
        try:
            await self._on_connection(batches)
        except Exception as error:  # noqa: BLE001 - the callers get every error, of a bug too
            _fail(batches, error)

    async def _on_connection(self, batches: Sequence[_Batch]) -> None:
        connection = await self._open()

        async def broke(error: Exception) -> None:
            await connection.disconnect(nowait=True)
            if isinstance(error.__context__, ReadOnlyError):  # redis-py's form of this refusal under sentinels
                await self._leave(connection, error.__context__)
            else:
                await self._give_up(connection)

        try:
            with self._masters.using(connection):
                await connection.retry.call_with_retry(lambda: self._ask(connection, batches), broke)
        except TimeoutError:
            await self._give_up(connection)
            raise
        finally:
            if connection.is_connected and not self._masters.is_left(connection):
                self._idle.append(connection)
            else:
                await self._release(connection)

    async def _open(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_connected and not await connection.can_read():
                return connection
            await self._release(connection)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self._pool.get_connection()
        except FOREIGN:
            await self._masters.leave()
            raise
        if self._masters.is_left(connection):
            await connection.disconnect(nowait=True)
        return connection

    async def _release(self, connection: Connection) -> None:
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def _ask(self, connection: Connection, batches: Sequence[_Batch]) -> None:
        """Send the batches that have no replies yet; an earlier connection may have broken between two replies."""
        left = [batch for batch in batches if not batch.replies.done()]
        async with asyncio.timeout(self._timeout_seconds):
            if not connection.is_connected:
                await connection.connect()  # asks the sentinels; a send would reconnect to the same address
            await connection.send_packed_command(b"".join([batch.packed for batch in left]), check_health=False)
            for batch in left:
                replies = [await _reply(connection) for _ in range(batch.count)]
                self._masters.answered(connection)
                refusals = list(filter(no_master, replies))
                if refusals:
                    await self._leave(connection, refusals[0])  # before the caller gets a connection for its retry
                elif not all(isinstance(reply, Exception) for reply in replies):
                    self._refused = False
                if not batch.replies.done():
                    batch.replies.set_result(replies)

    async def _leave(self, connection: Connection, refusal: Exception) -> None:
        """Give up the server of ``connection``, which is not the master, and look for another one."""
        if self._masters.is_left(connection):
            return
        if not self._refused:
            self._refused = True
            LOG.warning("this Redis is not a master; closing its connections", error=str(refusal))
        if str(refusal).startswith("NOREPLICAS") and self._masters.is_fresh(connection):
            return  # too new: another connection would lead to the same server
        await self._masters.leave()
        await self._left()

    async def _give_up(self, connection: Connection) -> None:
        """Give up all connections, since ``connection`` broke or its server is silent: there may be a new master."""
        if not self._masters.is_left(connection):
            await self._masters.leave()


def _fail(batches: Iterable[_Batch], error: Exception | None = None) -> None:
    """Give those of ``batches`` that have no replies ``error``; without one, the router is stopping."""
    error = error or RedisConnectionError("the router is stopping")
    for batch in batches:
        if not batch.replies.done():
            batch.replies.set_exception(error)


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
