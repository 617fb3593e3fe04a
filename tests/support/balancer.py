"""What stands in front of several nodes: takes connections on one port, and passes each on to a node that answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

CHUNK = 65_536


class Balancer:
    """Spreads connections over ``ports`` of 127.0.0.1 in turn; one that takes none is passed over."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._turns = itertools.count()
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until either end is done."""
        self._open.add(writer)
        try:
            node = await self._node()
            if node is not None:
                self._open.add(node[1])
                await asyncio.gather(self._pass_on(reader, node[1]), self._pass_on(node[0], writer))
                self._open.discard(node[1])
        finally:
            self._open.discard(writer)
            writer.close()

    async def _node(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        turn = next(self._turns)
        for offset in range(len(self._ports)):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._ports[(turn + offset) % len(self._ports)])
        return None

    def lead_to(self, ports: Sequence[int]) -> None:
        """New connections go there from now on; those that are open stay where they are."""
        self._ports = ports

    def cut(self, chosen: Callable[[], bool] = lambda: True) -> None:
        """Break every connection, or each for which ``chosen`` says so."""
        for writer in list(self._open):
            if chosen():
                writer.transport.abort()

    def hold_back(self) -> None:
        """From now on nothing gets through, in either direction; nobody is told."""
        self._flowing.clear()

    def let_through(self) -> None:
        """What was held back goes on, late."""
        self._flowing.set()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                if writer.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either end is gone; the other is told by the closing below
        finally:
            writer.close()


@asynccontextmanager
async def balancing(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """A ``Balancer`` that listens until the block is left."""
    balancer = Balancer(ports)
    server = await asyncio.start_server(balancer.take, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        balancer.cut()
        await server.wait_closed()
