"""Batches of commands on the connections of one pool, those of several callers together.

What is asked for in one turn of the event loop goes out as one write and costs one round trip, and so does what had to
wait until a connection was free. A batch that waits alone is sent at the end of the turn: nothing is delayed to collect
more. The library's own pipeline packs and reads in Python, with a timer for each answer, which is several times what a
small script costs the server.

A server that is not the master any more may keep its connections, while its name, or the sentinels, lead to another
one. Its refusal is a sign of that, and so is an outage: then all connections that were opened before it are closed, and
each new one finds out which server is the master (``masters``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import hiredis
from msgspec import Struct
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from router import logs
from router.backends.redis.failing import FOREIGN, no_master
from router.backends.redis.masters import Masters
from router.backends.redis.scripts import Command

LOG = logs.logger(__name__)
_pack: Callable[[Command], bytes] = hiredis.pack_command  # type: ignore[assignment]  # it takes any length, not one
JOINED_BYTES = 1024 * 1024
"""What has more than this goes out alone, so that nobody else waits for it."""


class _Batch(Struct, eq=False):
    packed: bytes
    count: int
    """Commands in it, each of which has one reply."""
    replies: asyncio.Future[list[Any]]


class Exchange:
    """Uses ``most`` connections at once; what is asked for beyond that waits."""

    def __init__(
        self,
        pool: ConnectionPool,
        most: int,
        timeout_seconds: float,
        masters: Masters,
        left: Callable[[], Awaitable[None]],
    ) -> None:
        """``pool`` is the caller's to close. Its connections meet ``masters``, and have no time-out of their own for
        what they read.

        ``left`` is called when a server that is not a master is left.
        """
        self._pool: Any = pool  # its methods have no types
        self._most = most
        self._timeout_seconds = timeout_seconds
        self._masters = masters
        self._left = left
        self._refused = False
        """Whether the last answer was that of no master: it is said once, however many there are."""
        self._waiting: deque[_Batch] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self._turn: asyncio.Handle | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to each of ``commands``, which run in their order; a refusal is a ``ResponseError`` among them.

        Raises what the library raises where a server cannot be reached, and ``TimeoutError`` where it has not answered
        in time. A caller that is cancelled takes nothing back of what has been sent.
        """
        packed = b"".join([_pack(command) for command in commands])
        batch = _Batch(packed, len(commands), asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        self._start_soon()
        return await batch.replies

    async def aclose(self) -> None:
        """Give up what is under way, and what waits."""
        self._most = 0
        if self._turn is not None:
            self._turn.cancel()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        _fail(self._waiting, RedisConnectionError("the router is stopping"))

    def _start_soon(self) -> None:
        if self._turn is None and len(self._under_way) < self._most:
            self._turn = asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._turn = None
        while self._waiting and len(self._under_way) < self._most:
            if batches := self._take():
                task = asyncio.get_running_loop().create_task(self._run(batches))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    def _take(self) -> list[_Batch]:
        """What goes out next, without what nobody waits for any more."""
        taken, size = list[_Batch](), 0
        while self._waiting and (not taken or size + len(self._waiting[0].packed) <= JOINED_BYTES):
            batch = self._waiting.popleft()
            if not batch.replies.done():
                taken.append(batch)
                size += len(batch.packed)
        return taken

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting:
            self._start_soon()

    async def _run(self, batches: Sequence[_Batch]) -> None:
        try:
            async with asyncio.timeout(2 * self._timeout_seconds):
                await self._on_connection(batches)
        except asyncio.CancelledError:
            _fail(batches, RedisConnectionError("the router is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits is told, of a bug too
            _fail(batches, error)

    async def _on_connection(self, batches: Sequence[_Batch]) -> None:
        connection = await self._open()

        async def broke(error: Exception) -> None:
            await connection.disconnect(nowait=True)
            if isinstance(error.__context__, ReadOnlyError):  # so the library tells it of a master under sentinels
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
            if self._masters.is_left(connection):
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def _open(self) -> Any:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self._pool.get_connection()
        except FOREIGN:
            await self._masters.leave()
            raise
        if self._masters.is_left(connection):
            await connection.disconnect(nowait=True)
        return connection

    async def _ask(self, connection: Any, batches: Sequence[_Batch]) -> None:
        """Send what has no replies yet: a connection may break between two of them."""
        left = [batch for batch in batches if not batch.replies.done()]
        async with asyncio.timeout(self._timeout_seconds):
            if not connection.is_connected:
                await connection.connect()  # what sends would go to the same address, and ask no sentinel for another
            await connection.send_packed_command(b"".join([batch.packed for batch in left]), check_health=False)
            for batch in left:
                replies = [await _reply(connection) for _ in range(batch.count)]
                self._masters.answered(connection)
                refusals = list(filter(no_master, replies))
                if refusals:
                    await self._leave(connection, refusals[0])  # before the caller, who sends it again, gets one
                elif not all(isinstance(reply, Exception) for reply in replies):
                    self._refused = False
                if not batch.replies.done():
                    batch.replies.set_result(replies)

    async def _leave(self, connection: Any, refusal: Exception) -> None:
        """The server of ``connection`` is not a master, or not one whose writes count: look for another."""
        if self._masters.is_left(connection):
            return
        if not self._refused:
            self._refused = True
            LOG.warning("this Redis is not a master; closing its connections", error=str(refusal))
        if str(refusal).startswith("NOREPLICAS") and self._masters.is_fresh(connection):
            return  # its name, or the sentinels, have led here only now
        await self._masters.leave()
        await self._left()

    async def _give_up(self, connection: Any) -> None:
        """``connection`` broke, or its server is silent: the others may lead to a server that another follows."""
        if not self._masters.is_left(connection):
            await self._masters.leave()


def _fail(batches: Iterable[_Batch], error: Exception) -> None:
    for batch in batches:
        if not batch.replies.done():
            batch.replies.set_exception(error)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal
