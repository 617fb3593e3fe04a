"""A refusal reaches who is still sending: the connection is closed in stages (RFC 9112, section 9.6)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest

from router.errors import InvalidRequest
from router.web import problems
from router.web.api import _ACK_FORM
from router.web.transport import lingering_close
from router.web.transport.http import HEADER_BYTES, KEPT_BYTES, HttpProtocol
from router.web.transport.server import Server
from router.web.transport.websocket import MAX_FRAMES
from tests.support.edge import EVENT_SECONDS, HOST, Raw, eventually, frame, handshake, raw
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio

SOON = 0.2
BODY = b" " * 4_000_000
"""More than the buffers of both ends hold: who has sent it was read to the end."""
LENGTH = b"content-length: %d\r\n" % len(BODY)
CLOSE = b"connection: close\r\n"
PING = 9


@pytest.fixture
async def edge(web: Web) -> AsyncIterator[Server]:
    async with web.serve() as server:
        yield server


def _exchange(port: int, request: bytes) -> bytes:
    """Send all of ``request`` before anything is read, as many clients do; raises where it is reset."""
    with socket.create_connection((HOST, port), timeout=EVENT_SECONDS) as client:
        client.sendall(request)
        answer = bytearray()
        while data := client.recv(65536):
            answer += data
        return bytes(answer)


async def refused(port: int, request: bytes, status: int) -> bytes:
    """The whole answer arrives, and then the end."""
    answer = await asyncio.to_thread(_exchange, port, request)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert json.loads(body)["status"] == status
    return answer


@pytest.mark.parametrize(
    "version",
    [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nhost: x\r\n" + CLOSE, b"HTTP/1.1\r\nhost: x\r\n"],
    ids=["1.0", "close", "kept"],
)
@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        (b"POST /api/send", b"authorization: Bearer expired\r\n", 401),
        (b"POST /nowhere", b"", 404),
        (b"PUT /api/send", b"", 405),
        (b"POST /api/send", b"TOKEN", 413),
        (b"POST /api/send", b"TOKENcontent-type: text/plain\r\n", 415),
        (b"POST /api/messages/ack", b"TOKENcontent-encoding: gzip\r\n", 415),
    ],
)
async def test_a_refusal_before_the_body_was_read(
    web: Web, edge: Server, version: bytes, start: bytes, more: bytes, status: int
) -> None:
    """A connection that would be kept ends with it too: nobody reads megabytes to keep one."""
    more = more.replace(b"TOKEN", b"authorization: Bearer %b\r\n" % web.token("alice").encode())
    answer = await refused(edge.port, start + b" " + version + more + LENGTH + b"\r\n" + BODY, status)
    assert b"\r\n" + CLOSE in answer


async def test_a_refusal_of_chunks_ends_the_connection(edge: Server) -> None:
    """Nobody knows how many are to come."""
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    await refused(edge.port, b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 100, 404)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /api/send HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /api/send HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"this is no HTTP\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"x" * HEADER_BYTES, 431),
        (b"POST /x HTTP/1.1\r\n" + LENGTH + b"\r\n", 400),
        (handshake("nobody").replace(b"\r\n\r\n", b"\r\n" + LENGTH + b"\r\n"), 431),
    ],
    ids=["chunk", "lengths", "no-http", "headers", "no-host", "handshake"],
)
async def test_an_unreadable_request_gets_its_refusal(edge: Server, head: bytes, status: int) -> None:
    await refused(edge.port, head + BODY, status)


async def test_what_comes_after_the_last_request_does_not_take_its_answer_away(web: Web, edge: Server) -> None:
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n"
    answer = await asyncio.to_thread(_exchange, edge.port, request + BODY)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_kept_connection_goes_on_behind_a_short_refused_body(edge: Server) -> None:
    """So many clients send their body after their headers, and a new connection costs more than the rest of it."""
    async with raw(edge.port) as client:
        await client.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % KEPT_BYTES)
        assert await client.line() == b"HTTP/1.1 404 Not Found\r\n"
        await client.send(b" " * KEPT_BYTES + b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + CLOSE + b"\r\n")
        assert b"HTTP/1.1 200 OK\r\n" in await client.answer()


async def test_a_long_body_that_is_whole_ends_nothing(web: Web, edge: Server) -> None:
    """Also where it comes in parts, and where it is refused for what is in it."""
    head = b"POST /api/messages/ack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: 140000\r\n\r\n"
    async with raw(edge.port) as client:
        for _ in range(2):
            await client.send(head % web.token("alice").encode() + b" " * 70_000)
            await eventually(lambda: web.work.statistics().users == 1 and web.work.statistics().units == 0)
            await client.send(b" " * 70_000)
            assert await client.line() == b"HTTP/1.1 400 Bad Request\r\n"
            while await client.line() != b"\r\n":
                pass
            await client.read(len(_form()))


async def test_what_is_thrown_away_is_read_in_turns(edge: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read, then everybody else: who sends megabytes that nobody wants holds up no one."""
    monkeypatch.setattr(lingering_close, "READ_SECONDS", 1000)
    async with raw(edge.port) as client, raw(edge.port) as other:
        for each in (client, other):
            await each.send(b"POST /nowhere HTTP/1.1\r\nhost: x\r\n" + LENGTH + b"\r\n")
            assert b" 404 " in await each.answer()
        protocols = [
            protocol for protocol in edge._uvicorn.server_state.connections if isinstance(protocol, HttpProtocol)
        ]
        floods = [asyncio.create_task(each.send(BODY)) for each in (client, other)]
        await eventually(lambda: not any(protocol._staged.transport.is_reading() for protocol in protocols))
        assert not any(flood.done() for flood in floods)
        for flood in floods:
            flood.cancel()


async def test_who_asks_first_is_refused_before_the_body(edge: Server) -> None:
    """``Expect: 100-continue``: the refusal is the answer, and the body never comes."""
    head = b"POST /api/send HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n" + LENGTH
    async with raw(edge.port) as client:
        await client.send(head + CLOSE + b"\r\n")
        answer = await client.answer()
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"100" not in answer.partition(b"\r\n")[0]
    await eventually(lambda: _open(edge) == 0)


async def test_who_asks_first_may_send_a_body_that_is_wanted(web: Web, edge: Server) -> None:
    authorization = b"authorization: Bearer %b\r\n" % web.token("alice").encode()
    head = b"POST /api/messages/ack HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 17\r\n"
    async with raw(edge.port) as client:
        await client.send(head + authorization + CLOSE + b"\r\n")
        assert await client.line() == b"HTTP/1.1 100 Continue\r\n"
        await client.send(b'{"messageIds":[]}')
        assert b"HTTP/1.1 204 " in await client.answer()


async def test_a_body_that_does_not_end_holds_no_connection(web: Web) -> None:
    async with web.serve(client_seconds=SOON) as edge, raw(edge.port) as client:
        await client.send(b"POST /nowhere HTTP/1.0\r\n" + LENGTH + b"\r\n ")
        assert b" 404 " in await client.answer(), "half of the connection is closed at once"
        await eventually(lambda: _open(edge) == 0)


async def test_a_flood_behind_a_refusal_is_bounded(edge: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "DISCARDED_BYTES", 100_000)
    async with raw(edge.port) as client:
        await client.send(b"POST /nowhere HTTP/1.0\r\n" + LENGTH + b"\r\n")
        assert b" 404 " in await client.answer()
        flood = asyncio.create_task(_without_end(client))
        with pytest.raises(ConnectionError):
            await flood


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /nowhere HTTP/1.0\r\n" + LENGTH + b"\r\n", b" 404 "),
        (handshake("nobody").replace(b"\r\n\r\n", b"\r\n" + LENGTH + b"\r\n"), b" 431 "),
    ],
    ids=["request", "handshake"],
)
async def test_a_refused_client_that_stays_holds_up_no_stop(web: Web, head: bytes, status: bytes) -> None:
    async with web.serve() as edge, raw(edge.port) as client:
        await client.send(head)
        assert status in await client.answer()
        assert _open(edge) == 1
        edge._uvicorn.server_state.connections.copy().pop().shutdown()
        await eventually(lambda: _open(edge) == 0)


async def test_the_code_that_ends_a_flood_of_frames_arrives(web: Web, edge: Server) -> None:
    """1008, and presence is gone at once: the client may go on sending for as long as it likes."""
    async with raw(edge.port) as client:
        assert b" 101 " in await client.upgrade(web.token("bob"))
        await client.send(frame(PING) * (MAX_FRAMES + 1) + frame(PING) * 500_000)
        await eventually(lambda: web.manager.statistics().connections == 0)
        assert _open(edge) == 1, "the client has not closed"
        assert (await client.answer()).endswith(b"\x88\x11\x03\xf0too many frames"), "a close frame with 1008"


def _form() -> bytes:
    """The answer to an acknowledgement that is none."""
    return bytes(problems.response(InvalidRequest(_ACK_FORM)).body)


async def _without_end(client: Raw) -> None:
    while True:
        await client.send(BODY)


def _open(edge: Server) -> int:
    return len(edge._uvicorn.server_state.connections)
