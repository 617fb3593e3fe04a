"""The load's WebSocket: upgrades, reports pokes, answers pings, and costs next to nothing while idle."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

from benchmarks.load_http import HOST, LoadError

POKE = b"{}"
OPENING = 64
"""Upgrades under way at once."""
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA  # RFC 6455, section 5.2
_FINAL, _MASKED, _SMALL = 0x80, 0x80, 126


class Socket(asyncio.Protocol):
    """One connection to ``/connect``; ``poked`` is called for each poke, in the event loop."""

    __slots__ = ("_buffer", "_opened", "_poked", "_request", "_transport", "lost")

    def __init__(self, token: str, poked: Callable[[], None]) -> None:
        self._request = _upgrade(token)
        self._poked = poked
        self._buffer = b""
        self._opened: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._transport.write(self._request)
        self._request = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(LoadError(f"the server refused a socket: {exc}"))

    async def opened(self) -> None:
        """Return once the server has agreed to the upgrade; raises ``LoadError``."""
        assert self._opened is not None, "asked once"
        await self._opened
        self._opened = None

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        if self._opened is not None and not self._opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self._opened.set_exception(LoadError(f"the server refused a socket: {head[:200]!r}"))
                return
            self._opened.set_result(None)
        self._buffer = self._frames(data)

    def _frames(self, data: bytes) -> bytes:
        """Take all whole frames; returns the rest. A server masks nothing and its frames here are small."""
        while len(data) >= 2 and len(data) >= 2 + data[1]:
            operation, payload = data[0] & 0x0F, data[2 : 2 + data[1]]
            if data[1] >= _SMALL or not data[0] & _FINAL:
                raise LoadError("a frame that is neither poke nor ping")
            data = data[2 + data[1] :]
            if operation == _TEXT and payload == POKE:
                self._poked()
            elif operation == _PING:
                self._transport.write(_frame(_PONG, payload))
            elif operation == _CLOSE:
                self._transport.close()
            else:
                raise LoadError(f"a frame that is neither poke nor ping: {operation} {payload!r}")
        return data

    def close(self) -> None:
        """Leave in good order."""
        self._transport.write(_frame(_CLOSE, b"\x03\xe8"))
        self._transport.close()


def _frame(operation: int, payload: bytes) -> bytes:
    """A client's frame. Its mask is zero: allowed by the format, and saves the work."""
    return bytes((_FINAL | operation, _MASKED | len(payload))) + b"\0\0\0\0" + payload


def _upgrade(token: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET /connect HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def connect(port: int, token: str, poked: Callable[[], None]) -> Socket:
    """An open socket; raises ``LoadError``."""
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: Socket(token, poked), HOST, port)
    await socket.opened()
    return socket


@contextlib.asynccontextmanager
async def sockets(port: int, wanted: Sequence[tuple[str, Callable[[], None]]]) -> AsyncIterator[list[Socket]]:
    """One open socket for each (token, poked); at the end none may have been lost."""
    opened: list[Socket] = []
    try:
        for start in range(0, len(wanted), OPENING):
            batch = wanted[start : start + OPENING]
            opened += await asyncio.gather(*(connect(port, token, poked) for token, poked in batch))
        yield opened
        if lost := sum(socket.lost for socket in opened):
            raise LoadError(f"the server dropped {lost} of {len(opened)} sockets")
    finally:
        for socket in opened:
            socket.close()


def nothing() -> None:
    """What a poke does to a client that does not care."""
