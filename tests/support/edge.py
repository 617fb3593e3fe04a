"""A real server on a port of loopback, in the process of the test, and a client with its bare hands on the socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from router.metrics import Metrics
from router.web.context import EdgeContext
from router.web.transport.config import TransportConfig
from router.web.transport.limits import Limits
from router.web.transport.server import Server

HOST = "127.0.0.1"
EVENT_SECONDS = 60.0
"""An event that has not come by then does not come."""


def server(
    app: ASGIApp,
    context: EdgeContext | None = None,
    *,
    ping_seconds: float = 20,
    client_seconds: float = 20,
    keep_alive_seconds: int = 620,
    longest_body: int = sys.maxsize,
) -> Server:
    """``app`` on a free port."""
    limits = Limits(context or EdgeContext([], Metrics()), ping_seconds, client_seconds, longest_body)
    return Server(TransportConfig(app, limits, keep_alive_seconds=keep_alive_seconds), HOST, 0)


async def eventually(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; what it waits for runs elsewhere and cannot be awaited."""
    async with asyncio.timeout(EVENT_SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def narrow(server: Server) -> None:
    """Let the kernel keep next to nothing of what is sent to clients who do not read."""
    server._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


class Raw:
    """Writes any bytes, and reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """As far as the server takes it."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(EVENT_SECONDS):
            return await self._reader.read()

    async def all_that_came(self) -> bytes:
        """All that comes until the server ends the connection, in whatever way."""
        came = bytearray()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(EVENT_SECONDS):
                while data := await self._reader.read(65536):
                    came += data
        return bytes(came)

    async def closed(self) -> None:
        """The server has ended the connection, in whatever way."""
        try:
            await self.answer()
        except ConnectionError:
            return

    def leave(self) -> None:
        """End the connection."""
        self._writer.transport.abort()

    def deafen(self) -> None:
        """Read no more, also not into this side's buffers."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as one that only writes

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        async with asyncio.timeout(EVENT_SECONDS):
            return await self._reader.readexactly(size)

    async def line(self) -> bytes:
        async with asyncio.timeout(EVENT_SECONDS):
            return await self._reader.readline()

    async def upgrade(self, token: str, more: Sequence[bytes] = ()) -> bytes:
        """Ask for ``/connect``; returns the status line, with the headers behind it read."""
        await self.send(handshake(token, more))
        async with asyncio.timeout(EVENT_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return head.partition(b"\r\n")[0]


def handshake(token: str, more: Sequence[bytes] = ()) -> bytes:
    """RFC 6455, section 4.1."""
    lines = [
        b"GET /connect HTTP/1.1",
        b"host: router",
        b"connection: Upgrade",
        b"upgrade: websocket",
        b"sec-websocket-version: 13",
        b"sec-websocket-key: " + base64.b64encode(os.urandom(16)),
        b"authorization: Bearer " + token.encode(),
        *more,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def frame(opcode: int, data: bytes = b"", *, last: bool = True) -> bytes:
    """A client's frame of at most 125 bytes, masked with zeros (RFC 6455, section 5.2)."""
    return bytes([opcode | (0x80 if last else 0), 0x80 | len(data), 0, 0, 0, 0]) + data


@asynccontextmanager
async def raw(port: int, *, deaf: bool = False) -> AsyncIterator[Raw]:
    """A connection to ``port``; a ``deaf`` one has a receive buffer that is full at once, and reads nothing itself."""
    plain = socket.socket()
    if deaf:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (HOST, port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=2**20)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
