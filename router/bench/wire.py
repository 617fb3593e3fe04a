"""The HTTP/1.1 transport of a load: httpx's own costs more time than the router that it measures."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

import httptools
import httpx

Headers = list[tuple[bytes, bytes]]


class Wire(httpx.AsyncBaseTransport):
    """One person's connection: kept open, opened again if it is lost, one request at a time. It uses no proxy."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._turn = asyncio.Lock()
        self._connection: _Connection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        timeout = request.extensions.get("timeout", {})
        async with self._turn:
            connection = self._connection
            if connection is None or connection.lost:
                connection = self._connection = await self._connect(request.url, timeout.get("connect"))
            try:
                async with asyncio.timeout(timeout.get("read")):
                    return await connection.exchange(_written(request, await request.aread()))
            except TimeoutError:
                raise httpx.ReadTimeout("no answer in time", request=request) from None
            finally:
                if not connection.idle:
                    connection.close()

    async def _connect(self, url: httpx.URL, seconds: float | None) -> _Connection:
        secure = url.scheme == "https"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(
                    _Connection, url.host, url.port or (443 if secure else 80), ssl=self._tls if secure else None
                )
        except TimeoutError:
            raise httpx.ConnectTimeout("cannot connect in time") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return connection

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _written(request: httpx.Request, body: bytes) -> bytes:
    head = b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)
    return head + b"".join(b"%b: %b\r\n" % field for field in request.headers.raw) + b"\r\n" + body


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = False
        self.idle = True
        """Whether no answer is awaited, and another request may follow."""
        self._answer: asyncio.Future[httpx.Response] | None = None
        self._begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail(httpx.RemoteProtocolError("the connection was closed before the answer was there"), exc)

    async def exchange(self, request: bytes) -> httpx.Response:
        """The answer; raises ``httpx.TransportError``."""
        self.idle = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.lost = True
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError("the answer is not HTTP"), error)

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: Headers = []
        self._body: list[bytes] = []

    def _fail(self, failure: httpx.TransportError, cause: Exception | None) -> None:
        failure.__cause__ = cause
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(failure)

    # The parser calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status, keep = self._parser.get_status_code(), self._parser.should_keep_alive()
        response = httpx.Response(status, headers=self._headers, content=b"".join(self._body))
        self._begin()
        if self._answer is not None and not self._answer.done():
            self.idle = keep
            self._answer.set_result(response)
