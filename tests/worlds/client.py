"""A client with its bare hands on the connection: nothing of an answer is left out but the time of day."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct

from tests.support.edge import HOST

ANSWER_SECONDS, POKE_SECONDS = 20.0, 6.0
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Answer(Struct, frozen=True):
    """All of one answer."""

    status: bytes
    fields: tuple[bytes, ...]
    """In their order, without ``Date``."""
    body: bytes


def request(
    method: str, target: str, fields: Sequence[tuple[str, str]] = (), body: bytes = b"", token: str = ""
) -> bytes:
    """One request, as it goes over the wire."""
    lines = [f"{method} {target} HTTP/1.1", "host: router", *(f"{name}: {value}" for name, value in fields)]
    if token:
        lines.append(f"authorization: Bearer {token}")
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """One connection, which stays open as long as the server lets it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, *requests: bytes) -> list[Answer]:
        """The answers to ``requests``, which go out at once; fewer where the server has closed."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(b"".join(requests))
        answers = []
        async with asyncio.timeout(ANSWER_SECONDS):
            for _ in requests:
                answers.append(answer := await _answer(reader))
                if b"connection: close" in answer.fields:
                    await self.close()
                    break
        return answers

    async def close(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            await _closed(writer)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    length = next((int(field.partition(b":")[2]) for field in fields if field.startswith(b"content-length:")), 0)
    kept = tuple(field for field in fields if not field.lower().startswith(b"date:"))
    return Answer(status, kept, await reader.readexactly(length))


class Socket:
    """One WebSocket, which is read all the while."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        """All but pings and pongs."""
        self._came = asyncio.Event()
        self._ponged = asyncio.Event()

    async def open(self, port: int, token: str) -> Answer:
        self._reader, self._writer = await asyncio.open_connection(HOST, port)
        fields = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
        fields.append(("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="))
        self._writer.write(request("GET", "/connect", fields, token=token))
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await _answer(self._reader)
        self._reading = asyncio.create_task(self._read())
        return answer

    async def _read(self) -> None:
        while True:
            try:
                first, length = await self._reader.readexactly(2)
                data = await self._reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if first & 0xF == PONG:
                self._ponged.set()
            elif first & 0xF != PING:
                self.frames.append((first & 0xF, data))
                self._came.set()

    async def poked(self) -> bool:
        """Whether a frame has come since the last time, or comes soon."""
        try:
            async with asyncio.timeout(POKE_SECONDS):
                await self._came.wait()
        except TimeoutError:
            return False
        self._came.clear()
        return True

    def take(self) -> list[tuple[int, bytes]]:
        """The frames since the last time."""
        taken, self.frames = self.frames, []
        self._came.clear()
        return taken

    async def flushed(self) -> None:
        """Return when all that was sent before has come."""
        self._ponged.clear()
        self._writer.write(bytes([0x80 | PING, 0x80, 0, 0, 0, 0]))
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._ponged.wait()

    async def close(self) -> None:
        """End the connection, and return when the reading has ended."""
        await _closed(self._writer)
        await asyncio.wait([self._reading])


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
