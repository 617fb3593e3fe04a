"""RACES 37: clients that are slow, large, many, or do not listen, at a real server. Each is cut off and counted."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import httpx
import pytest
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from router.core import work_budget
from router.core.challenges import ANSWER_SECONDS
from router.core.user_queue import CompositeMessageQueue
from router.messages import Delivery, Message, Queued
from router.metrics import Metrics
from router.web import user_requests
from router.web.context import EdgeContext
from router.web.fetch_coalescing import FETCHES_AT_ONCE
from router.web.transport.http import HEADER_BYTES, MAX_PIPELINED, HttpProtocol
from router.web.transport.limits import LimitedConfig
from router.web.transport.memory_budget import MemoryBudget
from router.web.transport.server import Server
from router.web.transport.websocket import (
    INVALID_TEXT,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    PING_STEPS,
    PROTOCOL_ERROR,
    WebSocketProtocol,
)
from tests.contract.stage import BOB
from tests.support.edge import EVENT_SECONDS, HOST, Raw, eventually, frame, handshake, narrow, raw, server
from tests.support.timeouts import Timeouts
from tests.web.conftest import BODY_SECONDS, Web

pytestmark = pytest.mark.anyio
SOON = 0.2
TEXT, CONTINUATION, PING, PONG = 1, 0, 9, 10

KEY = b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
VALID = KEY + b"sec-websocket-version: 13\r\n"


@pytest.fixture
async def edge(web: Web) -> AsyncIterator[Server]:
    async with web.serve() as server:
        yield server


@pytest.fixture
async def hasty(web: Web) -> AsyncIterator[Server]:
    """A server that waits for its clients for a moment only."""
    async with web.serve(client_seconds=SOON) as server:
        yield server


async def refused(client: Raw, status: int, slug: str) -> None:
    """The server answers with a problem document, and closes."""
    head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head
    assert json.loads(body)["type"].endswith(":" + slug)


def cut(web: Web, reason: str) -> float:
    return web.count("router_clients_cut_off_total", reason=reason)


def counted(web: Web, reason: str) -> float:
    return web.count("router_requests_refused_total", reason=reason)


def together(edge: Server, limit: int) -> MemoryBudget:
    """What all clients of ``edge`` may make it keep."""
    config = edge._uvicorn.config
    assert isinstance(config, LimitedConfig)
    config.limits.memory = MemoryBudget(limit)
    return config.limits.memory


def weighs(waiting: MemoryBudget, size: int) -> bool:
    return waiting.total >= size


# Requests that do not wait for answers.

GET = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_pipelined_requests_are_answered_in_their_order(web: Web, edge: Server) -> None:
    """Also those that come while others wait: reading goes on when nothing waits any more."""
    async with raw(edge.port) as client:
        for _ in range(3):
            await client.send((GET + b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n") * (MAX_PIPELINED // 2) + GET)
            for number in range(MAX_PIPELINED + 1):
                head = [await client.line()]
                while head[-1] != b"\r\n":
                    head.append(await client.line())
                assert head[0].split()[1] == (b"404" if number % 2 else b"200")
                length = next(line for line in head if line.startswith(b"content-length:"))
                await client.read(int(length.split()[1]))
    assert cut(web, "pipelining") == 0


async def test_requests_without_end_are_cut_off(web: Web, edge: Server) -> None:
    """Each takes a hundred times of its own size here."""
    async with raw(edge.port) as client:
        await client.send(GET * 5000)
        await client.closed()
    assert cut(web, "pipelining") == 1
    assert counted(web, "malformed-request") == 0


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        (b"GET", b"\0"),
        (b"GET", b"GET /slow HTTP/1.1\r\nhost: x\r\nx-slow: "),
        (b"GET", b"GET /large HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * HEADER_BYTES),
        (b"POST", b"POST /second HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nx"),
        (b"GET", handshake("token")),
    ],
    ids=["malformed", "slow", "large", "malformed-body", "handshake"],
)
async def test_a_request_gets_no_refusal_of_the_one_behind_it(method: bytes, rest: bytes) -> None:
    """It would look as if nothing had come of what is still under way, or stand in the middle of a page."""
    came, gate, metrics = asyncio.Event(), asyncio.Event(), Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        came.set()
        if scope["type"] == "http":
            await gate.wait()
        await Response()(scope, receive, send)

    async with server(app, EdgeContext([], metrics), client_seconds=SOON) as edge, raw(edge.port) as client:
        await client.send(method + b" /first HTTP/1.1\r\nhost: x\r\n\r\n")
        await came.wait()
        await client.send(rest)
        answer = await client.all_that_came()
        gate.set()
    assert answer == b""
    assert metrics.registry.get_sample_value("router_clients_cut_off_total", {"reason": "pipelining"}) == 1


async def test_nothing_is_read_while_requests_wait() -> None:
    """What has come with one answer is answered before more of it is taken."""
    gate = asyncio.Semaphore(0)
    waiting: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/gated":
            await gate.acquire()
        await Response()(scope, receive, send)

    class Noted(HttpProtocol):
        def data_received(self, data: bytes) -> None:
            waiting.append(len(self.pipeline))
            super().data_received(data)

    edge = server(app)
    edge._uvicorn.config.http = Noted
    gated = GET.replace(b"/healthz", b"/gated")
    async with edge, raw(edge.port) as client, raw(edge.port) as other:
        await client.send(gated * 4)
        for _ in range(3):
            gate.release()
            await passed(client)
            await client.send(gated)
            # When somebody else has been read and answered, this one would have been read as well.
            await other.send(GET)
            await passed(other)
        for _ in range(4):
            gate.release()
            await passed(client)
    assert set(waiting) == {0}


async def passed(client: Raw) -> None:
    """An answer without a body has come."""
    assert await client.line() == b"HTTP/1.1 200 OK\r\n"
    while await client.line() != b"\r\n":
        pass


# Headers.


async def test_a_client_that_says_nothing_is_cut_off(web: Web, hasty: Server) -> None:
    async with raw(hasty.port) as client:
        assert await client.answer() == b""
    assert cut(web, "silent") == 1


@pytest.mark.parametrize("more", [b"", b"x"])
async def test_headers_that_do_not_end_are_refused(web: Web, hasty: Server, more: bytes) -> None:
    """A byte now and then does not help."""
    async with raw(hasty.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
        answer = asyncio.create_task(refused(client, 408, "headers-too-slow"))
        while not answer.done():
            await client.send(more)
            await asyncio.sleep(SOON / 10)
        await answer
    assert counted(web, "headers-too-slow") == 1


@pytest.mark.parametrize("ended", [False, True])
async def test_headers_have_a_size(web: Web, edge: Server, ended: bool) -> None:
    """Whether they come at once and whole, or without end."""
    async with raw(edge.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * HEADER_BYTES + b"\r\n\r\n" * ended)
        await refused(client, 431, "headers-too-large")
    async with raw(edge.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n" * ended)
        await refused(client, 431, "headers-too-large")
    async with raw(edge.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-large: " + b"x" * (HEADER_BYTES - 100) + b"\r\n\r\n")
        assert await client.line() == b"HTTP/1.1 200 OK\r\n"
    assert counted(web, "headers-too-large") == 2


async def test_the_size_is_that_of_the_headers_not_of_the_body(web: Web, edge: Server) -> None:
    async with raw(edge.port) as client:
        head = f"POST /api/messages/ack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {web.token('alice')}\r\n".encode()
        body = b"x" * (HEADER_BYTES * 2)
        for _ in range(3):
            await client.send(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert await client.line() == b"HTTP/1.1 400 Bad Request\r\n"
            while await client.line() != b"\r\n":
                pass
            await client._reader.readuntil(b'"}')


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01 this is no HTTP", b"GET /\xff HTTP/1.1", b"GET http://router HTTP/1.1"]
)
async def test_what_is_no_http_is_a_problem_too(web: Web, edge: Server, data: bytes) -> None:
    async with raw(edge.port) as client:
        await client.send(data + b"\r\n\r\n")
        await refused(client, 400, "malformed-request")
    assert counted(web, "malformed-request") == 1


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"x-large: " + b"x" * HEADER_BYTES, 431),
        (b"x-large: " + b"x" * HEADER_BYTES + b"\r\n\r\n", 431),
        (b"x-slow: ", 408),
        (b"a: b\r\n\0: x\r\n\r\n", 400),
        (b"transfer-encoding: chunked\r\n\r\nx", 400),
    ],
    ids=["large", "large-and-whole", "slow", "malformed", "malformed-body"],
)
async def test_a_browser_can_read_what_never_reaches_the_application(
    web: Web, hasty: Server, rest: bytes, status: int
) -> None:
    """As far as its Origin has come; and the log has the id of the request."""
    head = b"POST /x HTTP/1.1\r\nhost: x\r\norigin: %b\r\nx-request-id: mine-1\r\n"
    with capture_logs([structlog.contextvars.merge_contextvars]) as logged:
        async with raw(hasty.port) as client:
            await client.send(head % b"https://chat.example" + rest)
            answer = await client.answer()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"access-control-allow-origin: https://chat.example\r\n" in answer
    assert b"\r\nx-request-id: mine-1\r\n" in answer
    assert b"\r\nvary: Origin\r\n" in answer
    assert ("refused", "mine-1") in [(entry["event"], entry.get("request_id")) for entry in logged]
    async with raw(hasty.port) as client:
        await client.send(head % b"https://evil.example" + rest)
        assert b"access-control" not in await client.answer()


async def test_what_follows_a_request_is_not_of_its_page(web: Web, edge: Server) -> None:
    """A proxy in front may have another client behind it."""
    async with raw(edge.port) as client:
        await client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\norigin: https://chat.example\r\n\r\n")
        while await client.line() != b"\r\n":
            pass
        await client._reader.readuntil(b"}")
        await client.send(b"\0")
        answer = await client.answer()
    assert b" 400 " in answer
    assert b"access-control" not in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /api/messages HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        handshake("no-token"),
        b"GET /connect HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
    ids=["answered", "refused", "refused-below", "socket-refused", "socket-refused-below"],
)
async def test_request_ids_tell_nothing_of_other_requests(edge: Server, request_: bytes) -> None:
    """A count in them would tell anybody how many requests others made in between."""
    made = []
    for _ in range(40):
        async with raw(edge.port) as client:
            await client.send(request_)
            while not (line := await client.line()).startswith(b"x-request-id: "):
                assert line != b"\r\n", "it has none"
            made.append(line.split()[1])
    assert len(set(made)) == len(made)
    assert made != sorted(made)
    # Of 40 random digits 37 alike are one in 10 ** 39.
    assert all(len(set(digits)) > 4 for digits in zip(*made, strict=True)), "a part of them is the process's"


async def test_pings_tell_nothing_of_other_sockets(web: Web) -> None:
    """Python's own generator can be computed on from what it gave: the next payload would tell how many others went."""
    random.seed(1)
    guessed = random.Random(1).getrandbits(32).to_bytes(4)
    async with web.serve() as edge, raw(edge.port) as client:
        await client.upgrade(web.token("bob"))
        (socket,) = web.manager.sockets(BOB)
        socket.ping()
        head, payload = await client.read(2), await client.read(4)
    assert head == bytes([0x80 | PING, 4])
    assert payload != guessed


async def test_sockets_are_pinged_at_moments_that_they_share(web: Web) -> None:
    """Each at a moment of its own would wake the process as often as there are sockets."""
    step = 20 / PING_STEPS
    async with web.serve() as edge, raw(edge.port) as one, raw(edge.port) as other:
        for client, user in ((one, "bob"), (other, "alice")):
            await client.upgrade(web.token(user))
        for protocol in edge._uvicorn.server_state.connections:
            assert isinstance(protocol, WebSocketProtocol)
            assert protocol.ping_timer is not None
            due, now = protocol.ping_timer.when(), protocol.loop.time()
            assert due % step == 0
            assert now < due <= now + 20


@pytest.mark.parametrize("more", [[b"x: " + b"x" * 9000], [b"x: y"] * 130])
async def test_a_handshake_that_cannot_be_read_is_answered(web: Web, edge: Server, more: list[bytes]) -> None:
    async with raw(edge.port) as client:
        assert b" 431 " in await client.upgrade(web.token("bob"), more)
        await client.closed()
    assert counted(web, "headers-too-large") == 1
    assert web.manager.statistics().connections == 0


@pytest.mark.parametrize(
    ("method", "more", "culprit"),
    [
        (b"GET", b"sec-websocket-version: 13\r\n", "Sec-WebSocket-Key"),
        (b"GET", KEY + b"sec-websocket-version: 12\r\n", "Sec-WebSocket-Version"),
        (b"GET", VALID + b"sec-websocket-protocol: secret token\r\n", "Sec-WebSocket-Protocol"),
        (b"GET", VALID + b"upgrade: h2c\r\nupgrade: websocket\r\n", "Upgrade"),
        (b"POST", VALID, "GET"),
    ],
    ids=["no-key", "version", "protocol", "upgrades", "post"],
)
async def test_what_is_no_handshake_is_counted(
    web: Web, edge: Server, method: bytes, more: bytes, culprit: str
) -> None:
    async with raw(edge.port) as client:
        start = b"connection: Upgrade\r\nupgrade: websocket\r\nx-request-id: mine-1\r\n"
        await client.send(b"%b /connect HTTP/1.1\r\nhost: x\r\n%b%b\r\n" % (method, start, more))
        head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-request-id: mine-1\r\n" in head
    problem = json.loads(body)
    assert problem["type"].endswith(":malformed-request")
    assert culprit in problem["detail"]
    assert "secret" not in problem["detail"]
    assert counted(web, "malformed-request") == 1


# Bodies.


@pytest.mark.parametrize("declared", [True, False])
async def test_a_large_body_is_refused_before_it_is_there(web: Web, edge: Server, declared: bool) -> None:
    """Declared, it is not even begun; in chunks, it is cut short. The connection ends, whatever the client does."""
    authorization = f"authorization: {web.bearer('alice')['authorization']}\r\n".encode()
    length = b"content-length: 1000000000\r\n\r\n" if declared else b"transfer-encoding: chunked\r\n\r\n"
    async with raw(edge.port) as client:
        await client.send(b"POST /api/send HTTP/1.1\r\nhost: x\r\n" + authorization + length)
        if not declared:
            await client.send((b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 2)
        assert await client.line() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        await client.send(b"1\r\n \r\n")
        await client.closed()
    assert counted(web, "body-too-large") == 1


async def test_a_slow_body_is_refused(web: Web, edge: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts = Timeouts(monkeypatch)
    authorization = f"authorization: {web.bearer('alice')['authorization']}\r\n".encode()
    async with raw(edge.port) as client:
        await client.send(b"POST /api/send HTTP/1.1\r\nhost: x\r\n" + authorization + b"content-length: 100\r\n\r\n{")
        await eventually(lambda: timeouts.end_all(BODY_SECONDS) == 1)
        assert await client.line() == b"HTTP/1.1 408 Request Timeout\r\n"
    assert counted(web, "body-too-slow") == 1


@pytest.mark.parametrize("deep", [b'{"recipientId":"bob","x":%b', b'{"messageIds":%b'])
async def test_deep_json_is_refused_and_breaks_nothing(web: Web, edge: Server, deep: bytes) -> None:
    path = "/api/send" if b"recipientId" in deep else "/api/messages/ack"
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{edge.port}") as client:
        for body in (deep % (b"[" * 15_000), deep % (b'{"a":' * 3_000), deep % (b"[" * 7_000 + b"]" * 7_000 + b"}")):
            response = await client.post(path, content=body, headers=web.bearer("alice"))
            assert response.status_code == 400
            web.clock.advance(1)
        assert (await client.get("/healthz")).is_success


async def test_a_refused_body_that_never_ends_is_cut_off(
    web: Web, hasty: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where not another byte comes after the refusal."""
    timeouts = Timeouts(monkeypatch)
    authorization = f"authorization: {web.bearer('alice')['authorization']}\r\n".encode()
    async with raw(hasty.port) as client:
        await client.send(b"POST /api/send HTTP/1.1\r\nhost: x\r\n" + authorization + b"content-length: 100\r\n\r\n{")
        await eventually(lambda: timeouts.end_all(BODY_SECONDS) == 1)
        assert b" 408 " in await client.answer()
    assert cut(web, "slow-body") == 1


async def test_nothing_is_kept_of_a_body_that_says_it_is_longer_than_any_may_be() -> None:
    """Nor does it count as kept; its end is seen all the same."""
    answer, got = asyncio.Event(), list[bytes]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answer.wait()
        while (message := await receive()).get("more_body"):
            got.append(message["body"])
        got.append(message["body"])
        await Response(status_code=204)(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    async with server(app, longest_body=50_000) as edge, raw(edge.port) as long, raw(edge.port) as short:
        waiting = together(edge, 250_000)
        await short.send(head % 50_000 + b"s" * 49_000)
        await eventually(partial(weighs, waiting, 49_000))
        await long.send(head % 50_001 + b"l" * 50_001)
        await short.send(b"s" * 1000)
        await eventually(partial(weighs, waiting, 50_000))
        answer.set()
        assert await long.line() == b"HTTP/1.1 204 No Content\r\n"
        assert await short.line() == b"HTTP/1.1 204 No Content\r\n"
        assert waiting.total == 0
    assert b"".join(got) == b"s" * 50_000


async def test_bodies_that_do_not_end_are_bounded_together(web: Web) -> None:
    """The one that began first makes room for the others; what is answered counts no more, nor does who is gone."""
    authorization = f"authorization: {web.bearer('alice')['authorization']}\r\n".encode()
    head = b"POST /api/messages/ack HTTP/1.1\r\nhost: x\r\n" + authorization + b"content-length: 100000\r\n\r\n"
    async with web.serve() as edge, AsyncExitStack() as held:
        waiting = together(edge, 250_000)
        whole = await held.enter_async_context(raw(edge.port))
        await whole.send(head + b" " * 99_000)
        await eventually(partial(weighs, waiting, 99_000))
        await whole.send(b" " * 1000)
        assert await whole.line() == b"HTTP/1.1 400 Bad Request\r\n"
        assert waiting.total == 0
        clients = [await held.enter_async_context(raw(edge.port)) for _ in range(4)]
        for number, client in enumerate(clients):
            await client.send(head + b" " * 99_000)
            await eventually(partial(weighs, waiting, 99_000 * min(2, number + 1)))
        for client in clients[:2]:
            await client.closed()
        assert cut(web, "crowded-out") == 2
        await held.aclose()
        await eventually(lambda: waiting.total == 0)


async def test_whole_bodies_count_until_they_are_answered() -> None:
    """Whatever their handlers wait for; and each of those that wait on one connection."""
    gate, metrics = asyncio.Event(), Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        await gate.wait()
        await Response()(scope, receive, send)

    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b" " * 100_000
    async with server(app, EdgeContext([], metrics)) as edge, AsyncExitStack() as held:
        waiting = together(edge, 250_000)
        first, second, third = [await held.enter_async_context(raw(edge.port)) for _ in range(3)]
        for number, client in enumerate((first, second), start=1):
            await client.send(request)
            await eventually(partial(weighs, waiting, 100_000 * number))
        await third.send(request)
        await first.closed()
        assert metrics.registry.get_sample_value("router_clients_cut_off_total", {"reason": "crowded-out"}) == 1
        await second.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 40000\r\n\r\n" + b" " * 40_000)
        await eventually(partial(weighs, waiting, 240_000))
        gate.set()
        for client in (second, second, third):
            await passed(client)
        assert waiting.total == 0


# Readers.


async def fill(web: Web) -> None:
    """Mail of 400 kB for Bob."""
    cold = await web.factory.cold_queue()
    online = await web.factory.online_store()
    for number in range(20):
        message = Message(f"m{number}", BOB, b'{"encryptedData":"%b"}' % (b"x" * 20_000), 1, False, web.clock.now())  # type: ignore[arg-type]  # a lane's number
        (routed,) = await online.route([Delivery(message, 0, 1)])
        await cold.put([Queued(message, routed.sequence, routed.queued_at)])


async def test_who_does_not_take_the_answer_is_cut_off(web: Web, hasty: Server) -> None:
    """A page of 400 kB, of which the kernel keeps a few."""
    await fill(web)
    narrow(hasty)
    request = (
        b"GET /api/messages?limit=500 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer %b\r\n\r\n"
    )
    request %= web.token("bob").encode()
    async with raw(hasty.port) as client:
        await client.send(request)
        assert len(await client.answer()) > 400_000, "who reads gets it all"
    async with raw(hasty.port, deaf=True) as client:
        client.deafen()
        await client.send(request)
        await eventually(lambda: cut(web, "slow-reader") == 1)


async def test_answers_that_nobody_takes_are_bounded_together(web: Web) -> None:
    """Whoever has waited longest is cut off; who takes what there is, is not."""
    await fill(web)
    request = (
        b"GET /api/messages?limit=500 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer %b\r\n\r\n"
    )
    request %= web.token("bob").encode()
    async with web.serve() as edge, AsyncExitStack() as held:
        waiting = together(edge, 1_000_000)
        narrow(edge)
        patient = await held.enter_async_context(raw(edge.port, deaf=True))
        await patient.send(request.replace(b"connection: close\r\n", b""))
        await eventually(partial(weighs, waiting, 1))
        await patient._reader.readexactly(400_000)
        await eventually(lambda: waiting.total == 0)
        for _ in range(5):
            client = await held.enter_async_context(raw(edge.port, deaf=True))
            client.deafen()
            await client.send(request)
        await eventually(lambda: cut(web, "crowded-out") == 3)
        async with raw(edge.port) as listener:
            await listener.send(request)
            assert len(await listener.answer()) > 400_000
        await held.aclose()
        await eventually(lambda: waiting.total == 0)


async def test_one_user_cannot_take_all_turns(web: Web, edge: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some fetches of one user are under way; more of them share one that follows, and nobody else waits."""
    fetch, going, go = CompositeMessageQueue.fetch, list[str](), asyncio.Event()

    async def slow(queue: CompositeMessageQueue, user: str, limit: int) -> list[Queued]:
        going.append(user)
        if user == BOB:
            await go.wait()
        return await fetch(queue, user, limit)

    monkeypatch.setattr(CompositeMessageQueue, "fetch", slow)
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{edge.port}", limits=limits) as client:

        async def messages(name: str) -> None:
            assert (await client.get("/api/messages", headers=web.bearer(name))).status_code == 200

        fetches = [asyncio.create_task(messages("bob")) for _ in range(FETCHES_AT_ONCE + 5)]
        await eventually(lambda: len(going) == FETCHES_AT_ONCE)
        await messages("alice")
        assert going.count(BOB) == FETCHES_AT_ONCE
        go.set()
        await asyncio.gather(*fetches)
    assert going.count(BOB) == FETCHES_AT_ONCE + 1


async def test_pages_that_are_to_be_sent_wait_for_no_fetch(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heavy page is sent when nothing else of its user is under way, and those who wait for a page wait for that."""
    await fill(web)
    monkeypatch.setattr(work_budget, "HEAVY", 50)
    monkeypatch.setattr(work_budget, "AT_ONCE", 50)
    monkeypatch.setattr(user_requests, "LARGE_UNITS", 1)
    async with asyncio.timeout(EVENT_SECONDS):
        pages = await asyncio.gather(*(web.http.get("/api/messages", headers=web.bearer("bob")) for _ in range(40)))
    assert {page.status_code for page in pages} == {200}


# Sockets.


@pytest.mark.parametrize(
    ("first", "flood"),
    [
        (b"", frame(PING, b"x" * 125)),
        (b"", frame(PONG)),
        (b"", frame(TEXT, b"hello")),
        (frame(TEXT, last=False), frame(CONTINUATION, last=False)),
    ],
    ids=["pings", "pongs", "texts", "fragments"],
)
async def test_a_flood_of_frames_ends_the_socket(web: Web, edge: Server, first: bytes, flood: bytes) -> None:
    """Also where nobody reads the answers: none are kept in memory for them."""
    narrow(edge)
    async with raw(edge.port) as client:
        assert b" 101 " in await client.upgrade(web.token("bob"))
        await client.send(first + flood * (MAX_FRAMES - 1 - bool(first)))
        web.manager.poke([BOB])
        assert web.manager.statistics().connections == 1
        await client.send(flood * 2)
        await client.closed()
    await eventually(lambda: cut(web, "too-many-frames") == 1)
    await eventually(lambda: web.manager.statistics().connections == 0)


async def test_a_refused_handshake_is_answered_without_an_error(
    web: Web, edge: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Strangers must not be able to fill the log with errors."""
    async with raw(edge.port) as client:
        assert b" 401 " in await client.upgrade("nobody")
        await client.closed()
    assert counted(web, "invalid_token") == 1
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_large_frame_ends_the_socket(web: Web, edge: Server) -> None:
    async with connect(f"ws://{HOST}:{edge.port}/connect", additional_headers=web.bearer("bob")) as socket:
        await socket.send("x" * (MAX_FRAME_BYTES + 1))
        await socket.wait_closed()
        assert socket.close_code == 1009
    assert cut(web, "bad-frame") == 1


@pytest.mark.parametrize(
    ("opcode", "payload", "code"), [(3, b"", PROTOCOL_ERROR), (1, b"\xff", INVALID_TEXT)], ids=["opcode", "text"]
)
async def test_a_broken_frame_ends_the_socket(web: Web, edge: Server, opcode: int, payload: bytes, code: int) -> None:
    async with raw(edge.port) as client:
        assert b" 101 " in await client.upgrade(web.token("bob"))
        await client.send(frame(opcode, payload))
        assert code.to_bytes(2, "big") in (await client.answer()).partition(b"\x88")[2][:3]
    await eventually(lambda: web.manager.statistics().connections == 0)


async def test_an_idle_socket_outlives_the_time_for_headers(web: Web, hasty: Server) -> None:
    """The time that a client has for its headers is no time for its silence afterwards."""
    async with connect(f"ws://{HOST}:{hasty.port}/connect", additional_headers=web.bearer("bob")) as socket:
        await asyncio.sleep(SOON * 3)
        web.manager.poke([BOB])
        async with asyncio.timeout(EVENT_SECONDS):
            assert await socket.recv() == "{}"
    assert web.count("router_clients_cut_off_total", reason="silent") == 0


async def test_connections_are_bounded_on_all_ports_together(web: Web) -> None:
    """However one ends, its place is free again; nobody who has one loses it."""
    web.context.connections.most = 3
    async with web.serve() as one, web.serve() as other, raw(one.port) as plain, raw(other.port) as wrong:
        async with raw(other.port) as socket:
            assert b" 101 " in await socket.upgrade(web.token("bob"))
            for number, port in enumerate((one.port, other.port, one.port), start=1):
                async with raw(port) as stranger:
                    await stranger.closed()
                assert cut(web, "no-room") == number
        await eventually(lambda: web.context.connections.open == 2)
        await wrong.send(b"\0\r\n\r\n")
        await refused(wrong, 400, "malformed-request")
        wrong.leave()
        await eventually(lambda: web.context.connections.open == 1)
        async with raw(one.port) as first, raw(other.port) as second:
            for client in (plain, first, second):
                await client.send(GET)
                assert await client.line() == b"HTTP/1.1 200 OK\r\n"
    await eventually(lambda: web.context.connections.open == 0)


@pytest.fixture
def all_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections have no pace."""
    monkeypatch.setattr(work_budget, "CONNECTS_AT_ONCE", 1000)


@pytest.mark.usefixtures("all_come_together")
async def test_one_user_cannot_hold_hundreds_of_sockets(web: Web) -> None:
    """Many at once, while the sockets that are held answer pings; who is over the limit is told before the upgrade."""
    token, refused = web.token("bob"), list[bytes]()
    async with web.serve() as server, AsyncExitStack() as held:
        url = f"ws://{HOST}:{server.port}/connect"
        for _ in range(20):
            await held.enter_async_context(connect(url, additional_headers=web.bearer("bob")))

        async def come() -> None:
            async with raw(server.port) as client:
                refused.append(await client.upgrade(token))

        flood = asyncio.gather(*(come() for _ in range(280)))
        # Those who wait for the challenge are as many as may be held.
        await eventually(lambda: len(refused) == 260)
        web.clock.advance(ANSWER_SECONDS)
        await flood
        assert set(refused) == {b"HTTP/1.1 429 Too Many Requests"}
        assert web.manager.statistics().connections == 20
        assert len(await (await web.factory.online_store()).connections(BOB)) == 20
        assert counted(web, "too-many-connections") + counted(web, "too-much-work") == 280
