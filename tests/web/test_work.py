"""RACES 37: what a user's requests cost: every route that takes a token is charged, and one user holds up no other."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator

import pytest
from starlette.routing import BaseRoute, Route, WebSocketRoute

from router.core.user_queue import CompositeMessageQueue
from router.core.work_budget import BODY_BYTES, CALL, CONNECT, SEND
from router.messages import Queued
from router.web import user_requests
from router.web.api import MAX_ACK_BYTES, MAX_ACK_IDS, MAX_ID_LENGTH
from router.web.application import Application
from router.web.poke_sockets import Sockets
from tests.support.edge import eventually, raw
from tests.web.conftest import WORK_BURST, WORK_RATE, Web
from tests.web.test_api import ENVELOPE, refusal

pytestmark = pytest.mark.anyio
ALICE = "urn:sm:user:alice"
PUBLIC = {"/healthz", "/readyz", "/openapi.json", "/asyncapi.json"}
"""The routes that take no token. Whoever adds one that does not belong here gives it a ``UserEndpoint``."""


def served(web: Web) -> Iterator[BaseRoute]:
    assert isinstance(web.app, Application)
    yield from web.app._router.routes


def test_every_route_is_public_or_charged(web: Web) -> None:
    """Also one that is added tomorrow."""
    found = set()
    for route in served(web):
        if isinstance(route, WebSocketRoute):
            assert isinstance(route.app, Sockets), route.path
        elif isinstance(route, Route) and route.path not in PUBLIC:
            plain = route.path == "/connect"  # 426 without a look at the token
            assert plain or isinstance(route.app, user_requests.UserEndpoint), f"{route.path} is not charged"
            found.add(route.path)
    assert found >= {"/api/send", "/api/messages", "/api/messages/ack", "/api/messages/next", "/connect"}


async def test_whoever_has_spent_it_all_is_refused_everywhere(web: Web) -> None:
    """Without a look at what is asked; nobody else is, and it comes back."""
    web.work.charge(ALICE, 3 * WORK_BURST)
    answers = [
        await web.http.request(method, route.path, headers=web.bearer("alice"), content=b"[")
        for route in served(web)
        if isinstance(route, Route) and route.path not in PUBLIC | {"/connect"}
        for method in route.methods or ()
    ]
    async with web.serve() as edge, raw(edge.port) as client:
        assert b" 429 " in await client.upgrade(web.token("alice"))
    for answer in answers:
        if answer.request.method != "HEAD":
            assert "limits.work_rate" in refusal(answer, 429, "too-much-work")
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) == pytest.approx(2 * WORK_BURST / WORK_RATE, abs=9)
    assert (await web.http.get("/api/messages", headers=web.bearer("eve"))).status_code == 200
    web.clock.advance(2 * WORK_BURST / WORK_RATE)
    late = {"authorization": f"Bearer {web.token('alice')}"}
    assert (await web.http.get("/api/messages", headers=late)).status_code == 200


async def test_what_each_request_costs(web: Web) -> None:
    """The table of docs/http.md#work."""
    costs = []
    at = web.work.spent(ALICE)
    for method, path, body in (
        ("GET", "/api/messages", b""),
        ("POST", "/api/send", json.dumps(ENVELOPE).encode()),
        ("POST", "/api/send", b"{"),
        ("POST", "/api/send", json.dumps(ENVELOPE).encode() + b" " * 8192),
        ("POST", "/api/messages/ack", json.dumps({"messageIds": ["x"] * 100}).encode()),
        ("POST", "/api/messages/next", json.dumps({"messageIds": ["x"] * 100}).encode()),
        ("POST", "/api/send", b'{"recipientId":"bob","x":[%b0]}' % (b"0," * 6400)),
    ):
        await web.http.request(method, path, content=body, headers=web.bearer("alice"))
        costs.append(round(web.work.spent(ALICE) - at))
        at = web.work.spent(ALICE)
    ids = CALL + 100 + 3
    assert costs == [CALL, CALL + SEND, CALL + SEND, CALL + SEND + 8, ids, ids, CALL + SEND + 12 + 200]
    async with web.serve() as edge, raw(edge.port) as client:
        assert b" 101 " in await client.upgrade(web.token("alice"))
    assert round(web.work.spent(ALICE) - at) == CALL + CONNECT


async def test_a_page_costs_what_is_in_it(web: Web) -> None:
    for _ in range(4):
        await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("eve"))
    await web.route()
    before = web.work.spent("urn:sm:user:bob")
    page = await web.http.get("/api/messages", headers=web.bearer("bob"))
    assert len(page.json()["messages"]) == 4
    assert round(web.work.spent("urn:sm:user:bob") - before) == CALL + 4 + len(page.content) // 4096
    before = web.work.spent("urn:sm:user:bob")
    ids = [message["id"] for message in page.json()["messages"]]
    await web.http.post("/api/messages/next", json={"messageIds": ids[:2]}, headers=web.bearer("bob"))
    assert round(web.work.spent("urn:sm:user:bob") - before) == CALL + 2 + 2


async def test_a_strangers_request_costs_no_user_anything(web: Web) -> None:
    await web.http.get("/api/messages", headers={"authorization": "Bearer x"})
    assert (web.work.statistics().users, web.work.statistics().budgets) == (0, 0)


async def test_what_fails_is_over(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(_: CompositeMessageQueue, user: str, limit: int) -> list[Queued]:
        raise ZeroDivisionError(user, limit)

    monkeypatch.setattr(CompositeMessageQueue, "fetch", bug)
    for path in ("/api/messages", "/api/messages?limit=x"):
        await web.http.get(path, headers=web.bearer("alice"))
    await web.http.post("/api/send", content=b"{", headers=web.bearer("alice"))
    await eventually(lambda: web.work.statistics().users == 0)


# Bounds of an acknowledgement and of any body.


async def test_an_acknowledgement_has_a_thousand_ids(web: Web) -> None:
    """Also of the longest."""
    ids = [f"{number:0{MAX_ID_LENGTH}}" for number in range(MAX_ACK_IDS)]
    body = json.dumps({"messageIds": ids})
    assert len(body) < MAX_ACK_BYTES
    acked = await web.http.post("/api/messages/ack", content=body, headers=web.bearer("bob"))
    assert acked.status_code == 204
    body = json.dumps({"messageIds": [str(uuid.uuid4()) for _ in range(MAX_ACK_IDS + 1)]})
    many = await web.http.post("/api/messages/ack", content=body, headers=web.bearer("bob"))
    assert str(MAX_ACK_IDS) in refusal(many, 400, "invalid-request")
    body = json.dumps({"messageIds": [str(uuid.uuid4()) for _ in range(10 * MAX_ACK_IDS)]})
    more = await web.http.post("/api/messages/ack", content=body, headers=web.bearer("bob"))
    assert f"{MAX_ACK_IDS} ids" in refusal(more, 413, "body-too-large")


async def test_what_can_be_no_id_is_no_message(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    async def note(_: CompositeMessageQueue, user: str, ids: list[str]) -> None:
        del user
        found.extend(ids)

    monkeypatch.setattr(CompositeMessageQueue, "acknowledge", note)
    ids = ["x", "y" * MAX_ID_LENGTH, "z" * (MAX_ID_LENGTH + 1)]
    acked = await web.http.post("/api/messages/ack", json={"messageIds": ids}, headers=web.bearer("bob"))
    assert acked.status_code == 204
    assert found == ids[:2]


@pytest.mark.parametrize("path", ["/api/send", "/api/messages/ack", "/api/messages/next"])
@pytest.mark.parametrize("value", [b"0", b"{}", b"[[]]", b'{"a":1}', b'""'])
async def test_a_body_with_too_many_values_is_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch, path: str, value: bytes
) -> None:
    """Each costs far more to read than its bytes."""
    monkeypatch.setattr(user_requests, "MAX_VALUES", 100)
    head = b'{"recipientId":"bob","messageIds":["x"],"more":['
    few = await web.http.post(path, content=head + value + b"]}", headers=web.bearer("alice"))
    assert few.is_success
    many = await web.http.post(path, content=head + b",".join([value] * 100) + b"]}", headers=web.bearer("alice"))
    assert "100 values" in refusal(many, 400, "invalid-request")


# Bodies that are thrown away.

LONG = b" " * 1_000_000
CHUNKED = b"transfer-encoding: chunked\r\n"


def head(web: Web, start: str, more: bytes) -> bytes:
    return b"%b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n%b\r\n" % (
        start.encode(),
        web.token("alice").encode(),
        more,
    )


@pytest.mark.parametrize("framing", [b"content-length: %d\r\n" % len(LONG), CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize(
    ("start", "more", "status"),
    [
        ("POST /api/send", b"", 413),
        ("POST /api/messages/ack", b"", 413),
        ("POST /api/messages/next", b"", 413),
        ("POST /api/send", b"content-type: text/plain\r\n", 415),
        ("POST /api/send", b"content-encoding: gzip\r\n", 415),
        ("GET /api/messages", b"", 200),
        ("GET /api/messages?limit=x", b"", 400),
    ],
)
async def test_a_body_that_is_thrown_away_is_charged(
    web: Web, start: str, more: bytes, status: int, framing: bytes
) -> None:
    """To its last byte, although it is refused at its first."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG) if framing is CHUNKED else LONG
    async with web.serve() as edge, raw(edge.port) as client:
        await client.send(head(web, start, framing + more) + body)
        assert (await client.answer()).startswith(b"HTTP/1.1 %d " % status)
        # While a part is read a moment passes, in which a little comes back.
        await eventually(lambda: web.work.spent(ALICE) == pytest.approx(CALL + len(LONG) / BODY_BYTES, rel=0.01))


async def test_a_body_behind_a_refusal_for_too_much_work_is_charged(web: Web) -> None:
    """The refusal costs nothing; who sends megabytes with each try digs deeper."""
    web.work.charge(ALICE, 3 * WORK_BURST)
    async with web.serve() as edge, raw(edge.port) as client:
        await client.send(head(web, "POST /api/send", b"content-length: %d\r\n" % len(LONG)))
        assert b" 429 " in await client.answer()
        before = web.work.spent(ALICE)
        await client.send(LONG)
        await eventually(lambda: web.work.spent(ALICE) >= before + len(LONG) / BODY_BYTES - 1)


async def test_the_rest_of_a_short_body_is_charged(web: Web) -> None:
    """Its connection is kept."""
    async with web.serve() as edge, raw(edge.port) as client:
        await client.send(head(web, "POST /api/send", b"content-type: text/plain\r\ncontent-length: 10240\r\n"))
        assert b" 415 " in await client.line()
        await client.send(b" " * 10240)
        await eventually(lambda: web.work.spent(ALICE) >= CALL + 10 - 0.1)


async def test_a_body_whose_client_leaves_is_charged(web: Web) -> None:
    async with web.serve() as edge, raw(edge.port) as client:
        await client.send(head(web, "POST /api/send", b"content-length: 16000\r\n") + b" " * 10240)
        await eventually(lambda: web.work.statistics().users == 1)
        client.leave()
        await eventually(lambda: web.work.spent(ALICE) >= CALL + 10 - 0.1)


async def test_a_body_of_nobody_costs_nobody_anything(web: Web) -> None:
    for start in (b"POST /nowhere", b"POST /api/send"):
        async with web.serve() as edge, raw(edge.port) as client:
            await client.send(start + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 20000\r\n\r\n" + b" " * 20_000)
            assert (await client.line()).startswith(b"HTTP/1.1 40")
    assert web.work.statistics().budgets == 0


# One user and the others, at a real server.


async def test_what_one_user_has_waiting_holds_up_nobody_else(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen acknowledgements of 400 ids each: one is under way, and the next when that is done."""
    gate = asyncio.Event()
    under_way = 0

    async def slow(_: CompositeMessageQueue, user: str, ids: list[str]) -> None:
        nonlocal under_way
        assert user == ALICE
        assert len(ids) == 400
        under_way += 1
        await gate.wait()

    monkeypatch.setattr(CompositeMessageQueue, "acknowledge", slow)
    body = {"messageIds": ["x"] * 400}
    acks = [
        asyncio.create_task(web.http.post("/api/messages/ack", json=body, headers=web.bearer("alice")))
        for _ in range(16)
    ]
    await eventually(lambda: web.work.statistics().calls == 16)
    await eventually(lambda: under_way == 1)
    sent = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("eve"))
    assert (sent.status_code, under_way) == (202, 1)
    gate.set()
    assert {ack.status_code for ack in await asyncio.gather(*acks)} == {204}
    assert under_way == 16


async def test_a_slow_body_holds_no_turn(web: Web) -> None:
    head = f"POST /api/messages/ack HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {web.token('alice')}\r\n"
    async with web.serve() as edge, raw(edge.port) as slow:
        await slow.send(head.encode() + b"content-length: 100\r\n\r\n{")
        await eventually(lambda: web.work.statistics().users == 1)
        await eventually(lambda: web.work.statistics().units == 0)
    await eventually(lambda: web.work.statistics().users == 0)
