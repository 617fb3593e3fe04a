"""The load's HTTP against a server that says what it is told to say."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from router.bench.tries import Counted, Failed
from router.bench.wire import Wire

pytestmark = pytest.mark.anyio
TLS = ssl.create_default_context()


class Script:
    """Answers each connection's requests with its part of the script, then closes it; remembers the requests.

    ``None``: says nothing until the client has gone.
    """

    def __init__(self, connections: Sequence[Sequence[bytes | None]]) -> None:
        self._connections = list(connections)
        self.requests: list[bytes] = []
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self._connections.pop(0):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(httpx.Headers(_fields(head)).get("content-length", "0"))
            self.requests.append(head + await reader.readexactly(length))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        writer.close()


def _fields(head: bytes) -> list[tuple[bytes, bytes]]:
    parts = [line.partition(b": ") for line in head.split(b"\r\n")[1:] if line]
    return [(name, value) for name, _, value in parts]


@asynccontextmanager
async def scripted(*connections: Sequence[bytes | None]) -> AsyncIterator[Script]:
    script = Script(connections)
    server = await asyncio.start_server(script.take, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield script


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields])
    return f"{head}\r\n\r\n".encode() + body


async def test_requests_share_a_connection_and_arrive_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    packed = answer(gzip.compress(b"packed"), "200 OK", "content-encoding: gzip")
    answers = [answer(b"{}"), chunked, packed, b"HTTP/1.1 204 No Content\r\n\r\n"]
    async with scripted(answers) as script, httpx.AsyncClient(base_url=script.url, transport=Wire(TLS)) as client:
        posted = await client.post("/a?b=c", content=b"body", headers={"x": "y"})
        assert (posted.status_code, posted.content) == (200, b"{}")
        assert (await client.get("/")).content == b"abcde"
        assert (await client.get("/")).content == b"packed"
        assert (await client.post("/")).status_code == 204
    assert script.requests[0].startswith(b"POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:")
    assert script.requests[0].endswith(b"\r\nx: y\r\nContent-Length: 4\r\n\r\nbody")


async def test_a_connection_that_the_server_closed_is_opened_anew() -> None:
    async with (
        scripted([answer(b"1", "200 OK", "connection: close")], [answer(b"2")]) as script,
        httpx.AsyncClient(base_url=script.url, transport=Wire(TLS)) as client,
    ):
        assert [(await client.get("/")).content for _ in range(2)] == [b"1", b"2"]


@pytest.mark.parametrize("told", [b"", b"HTTP/1.1 2", b"???"])
async def test_no_answer_is_a_transport_error_and_counted(told: bytes) -> None:
    failed: Counter[Failed] = Counter()
    async with (
        scripted([told], [answer(b"good")]) as script,
        httpx.AsyncClient(base_url=script.url, transport=Counted(Wire(TLS), failed)) as client,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/x")
        assert (await client.get("/x")).content == b"good"
    assert failed == {Failed("GET /x", None, "RemoteProtocolError"): 1}


async def test_silence_and_refused_connections_are_transport_errors() -> None:
    async with scripted([None], [answer(b"in time")]) as script:
        async with httpx.AsyncClient(base_url=script.url, transport=Wire(TLS)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get("/", timeout=0.01)
            assert (await client.get("/")).content == b"in time"
        closed = script.url
    async with httpx.AsyncClient(base_url=closed, transport=Wire(TLS)) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("/")


async def test_refusals_are_counted_by_the_type_of_the_problem() -> None:
    problem = answer(b'{"type":"urn:sealed-router:problem:rate-limited"}', "429 Too Many Requests")
    failed: Counter[Failed] = Counter()
    async with (
        scripted([problem, problem, answer(b"oops", "502 Bad Gateway")]) as script,
        httpx.AsyncClient(base_url=script.url, transport=Counted(Wire(TLS), failed)) as client,
    ):
        for _ in range(3):
            await client.post("/api/send")
    assert failed == {
        Failed("POST /api/send", 429, "rate-limited"): 2,
        Failed("POST /api/send", 502, "Bad Gateway"): 1,
    }
