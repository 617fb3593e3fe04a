"""The load's HTTP/1.1: requests made by hand, answers parsed as little as possible.

A comfortable client costs more than the server that it measures. This one speaks only to the servers under test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Final, cast

from msgspec import Struct

HOST: Final = "127.0.0.1"
ANSWER_SECONDS = 30.0
"""A server that is silent for longer has failed."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class LoadError(Exception):
    """The server under test did not do what the load asks; no figure may come of it."""


class Answer(Struct, frozen=True, gc=False):
    status: int
    body: bytes


class Http(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Answer] | None = None
        self._chunks: list[bytes] = []
        self._status = 0
        self._missing = -1
        """Bytes of the body that are still to come; -1 while the head is not complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(LoadError(f"the server closed a connection: {exc}"))

    async def request(self, request: bytes, expected: int) -> bytes:
        """The body of the answer; raises ``LoadError`` unless its status is ``expected``."""
        self._waiter = self._loop.create_future()
        silence = self._loop.call_later(ANSWER_SECONDS, self._fail, LoadError("the server does not answer"))
        self._transport.write(request)
        try:
            answer = await self._waiter
        finally:
            silence.cancel()
        if answer.status != expected:
            raise LoadError(f"{request[:40]!r} was answered {answer.status}: {answer.body[:300]!r}")
        return answer.body

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            data = b"".join([*self._chunks, data])
            head_end = data.find(_HEAD_END)
            if head_end < 0:
                self._chunks = [data]
                return
            self._status = int(data[9:12])
            self._missing = _content_length(data, head_end)
            self._chunks = []
            data = data[head_end + len(_HEAD_END) :]
        self._chunks.append(data)
        self._missing -= len(data)
        if self._missing <= 0:
            self._answered()

    def _answered(self) -> None:
        answer = Answer(self._status, b"".join(self._chunks))
        self._chunks, self._missing = [], -1
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(answer)

    def _fail(self, error: LoadError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def close(self) -> None:
        self._transport.abort()


def _content_length(data: bytes, head_end: int) -> int:
    start = data.find(_LENGTH, 0, head_end)
    if start < 0:
        return 0
    start += len(_LENGTH)
    return int(data[start : data.index(b"\r\n", start)])


@contextlib.asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Http]]:
    """``count`` open connections to ``port``."""
    loop = asyncio.get_running_loop()
    opened: list[Http] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(Http, HOST, port)
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def post(path: str, token: str, body: bytes, key: str = "") -> bytes:
    """A POST of JSON; ``key``: its Idempotency-Key, if it has one."""
    return b"".join((_post_head(path, token, key), b"%d\r\n\r\n" % len(body), body))


def _post_head(path: str, token: str, key: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
    keyed = f"Idempotency-Key: {key}\r\n" if key else ""
    return f"{head}{keyed}Content-Type: application/json\r\nContent-Length: ".encode()


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def fetch(token: str, limit: int) -> bytes:
    """``GET /api/messages``."""
    return get(f"/api/messages?limit={limit}", token)


def ack(token: str, ids: Iterable[str]) -> bytes:
    """``POST /api/messages/ack``; the ids need no escaping."""
    listed = '","'.join(ids)
    return post("/api/messages/ack", token, f'{{"messageIds":["{listed}"]}}'.encode())


def next_page(token: str, ids: Iterable[str], limit: int) -> bytes:
    """``POST /api/messages/next``; the ids need no escaping."""
    listed = '","'.join(ids)
    return post("/api/messages/next", token, f'{{"messageIds":["{listed}"],"limit":{limit}}}'.encode())
