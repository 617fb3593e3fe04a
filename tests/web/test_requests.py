"""Whom a request is for, and which protocol it asks for (RFC 9110, section 7.8; RFC 9112, section 3)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from router.web.transport.server import Server
from tests.support.edge import handshake, raw, server
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio
CLOSE = b"connection: close\r\n\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
WEBSOCKET = b"".join(line + b"\r\n" for line in handshake("token").split(b"\r\n")[2:-2])
LAST = b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + CLOSE


@pytest.fixture
async def edge(web: Web) -> AsyncIterator[Server]:
    async with web.serve() as server:
        yield server


async def answers(edge: Server, *requests: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer until the server closes."""
    async with raw(edge.port) as client:
        for request in requests:
            await client.send(request)
        rest, found = await client.answer(), []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split()[1]) for line in lines if line.startswith(b"content-length:")), 0)
        found.append((int(lines[0].split()[1]), rest[:length]))
        rest = rest[length:]
    return found


@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        b"host: x\r\nhost: x\r\n",
        b"host: x\r\nHOST: y\r\n",
        b"host:\r\n",
        b"host: a b\r\n",
        b"host: a,b/c\r\n",
        b"host: ann@router\r\n",
        b"host: http://router\r\n",
        b"host: router:x\r\n",
        b"host: ::1\r\n",
        b"host: [::1\r\n",
    ],
)
async def test_a_request_is_for_one_host(web: Web, edge: Server, hosts: bytes) -> None:
    ((status, body),) = await answers(edge, b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
    assert status == 400
    problem = json.loads(body)
    assert problem["type"].endswith(":malformed-request")
    assert "Host" in problem["detail"]
    assert web.count("router_requests_refused_total", reason="malformed-request") == 1


@pytest.mark.parametrize(
    "host", [b"router.example", b"router:8082", b"[::1]:8082", b"127.0.0.1", b"a_b.example", b"x:", b"R%C3%B6.example"]
)
async def test_hosts_that_can_be(edge: Server, host: bytes) -> None:
    ((status, _),) = await answers(edge, b"GET /healthz HTTP/1.1\r\nhost: " + host + b"\r\n" + CLOSE)
    assert status == 200


async def test_http_1_0_needs_no_host(edge: Server) -> None:
    ((status, _),) = await answers(edge, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert status == 200


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"GET http://router/healthz", 200),
        (b"GET HTTPS://router:443/healthz?x", 200),
        (b"GET http://router", 404),
        (b"GET http://router?x", 404),
        (b"OPTIONS *", 404),
        (b"OPTIONS /api/send", 405),
        (b"CONNECT router:443", 400),
        (b"HEAD /healthz", 200),
        (b"HEAD /api/messages", 401),
    ],
)
async def test_forms_of_targets(edge: Server, start: bytes, status: int) -> None:
    async with raw(edge.port) as client:
        await client.send(start + b" HTTP/1.1\r\nhost: x\r\n" + CLOSE)
        head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert bool(body) == (not start.startswith(b"HEAD"))


@pytest.mark.parametrize("upgrade", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
async def test_an_upgrade_elsewhere_is_ignored(web: Web, edge: Server, upgrade: bytes) -> None:
    """Java's HttpClient asks for h2c with each request; a proxy may pass on what a page asked for."""
    token = b"authorization: Bearer %b\r\n" % web.token("alice").encode()
    upgrade = b"".join(line + b"\r\n" for line in upgrade.split(b"\r\n") if line and b"authorization" not in line)
    fields = b"host: x\r\n" + token + upgrade
    body = b'{"messageIds":[]}'
    found = await answers(
        edge,
        b"GET /api/messages HTTP/1.1\r\n" + fields + b"\r\n",
        b"POST /api/messages/ack HTTP/1.1\r\n" + fields + b"content-length: 17\r\n\r\n" + body,
        b"POST /api/messages/ack HTTP/1.1\r\n" + fields + b"transfer-encoding: chunked\r\n\r\n11\r\n" + body,
        b"\r\n0\r\n\r\n" + LAST,
    )
    assert [status for status, _ in found] == [200, 204, 204, 200]


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
async def test_a_body_behind_an_upgrade_is_no_request(web: Web, edge: Server, pieces: int) -> None:
    """Behind a proxy it could be taken for somebody else's; however it comes in pieces."""
    smuggled = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
    head = b"POST /healthz HTTP/1.1\r\nhost: x\r\n" + H2C + b"content-length: %d\r\n\r\n" % len(smuggled)
    stream = (head + smuggled) * 3 + LAST
    found = await answers(edge, *(stream[at : at + pieces] for at in range(0, len(stream), pieces)))
    assert [status for status, _ in found] == [405, 405, 405, 200]
    assert web.count("router_http_requests_total", route="other", status="404") == 0


async def test_an_upgrade_in_the_last_request(edge: Server) -> None:
    head = b"POST /healthz HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\nupgrade: h2c\r\n"
    request = head + b"content-length: 2\r\n\r\n{}"
    assert [status for status, _ in await answers(edge, request)] == [405]


async def test_requests_with_upgrades_are_bounded_as_others_are(web: Web, edge: Server) -> None:
    async with raw(edge.port) as client:
        await client.send((b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + H2C + b"\r\n") * 3000)
        await client.closed()
    assert web.count("router_clients_cut_off_total", reason="pipelining") == 1


async def test_no_upgrade_in_http_1_0(web: Web, edge: Server) -> None:
    """Nobody in between would know that it is a socket."""
    ((status, _),) = await answers(edge, handshake(web.token("bob")).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert status == 426


async def test_an_upgrade_of_the_socket_by_its_absolute_form(web: Web, edge: Server) -> None:
    async with raw(edge.port) as client:
        await client.send(handshake(web.token("bob")).replace(b"/connect", b"http://router/connect"))
        assert (await client.line()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("seconds", [0, 620])
async def test_an_idle_connection_is_kept_as_long_as_configured(web: Web, seconds: int) -> None:
    """A proxy in front that keeps it longer would send a request into one that is being closed."""
    request = LAST.replace(CLOSE, b"\r\n")
    async with server(web.app, web.context, keep_alive_seconds=seconds) as edge, raw(edge.port) as client:
        await client.send(request)
        if seconds:
            await client.line()
            assert edge._uvicorn.config.timeout_keep_alive == seconds
            await client.send(request)
            assert b"HTTP/1.1 200 OK" in await client.read(300)
        else:
            assert (await client.answer()).startswith(b"HTTP/1.1 200 OK")
