"""What the public ports say of this process, and what the admin port says."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from router.core.readiness import FRESH_SECONDS
from router.errors import Unavailable
from router.messages import Connection
from router.web.problems import MEDIA_TYPE
from tests.contract.stage import BOB
from tests.support.edge import raw
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio
CHANGES = ("date", "x-request-id")
"""The header fields that differ from one answer to the next."""
WAYS_ROUND = (
    "/metrics",
    "/%6detrics",
    "/%6Detrics",
    "/%2fmetrics",
    "//metrics",
    "/metrics/",
    "/metrics?",
    "/metrics%00",
    "/METRICS",
    "/./metrics",
    "/api/../metrics",
    "/healthz/../metrics",
    "/readyz/metrics",
    "http://x/metrics",
    "HTTP://x/metrics",
    "http://x//metrics",
    "https://127.0.0.1:8084/metrics",
    "http://x/%6detrics",
    "*",
)
NOT_OFFERED = (404, 405, 400)


class Thing:
    """A dependency, and how often it was asked."""

    def __init__(self, web: Web) -> None:
        self.works = True
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        web.readiness.depends("thing", "embedded", self.probe)

    async def probe(self) -> None:
        self.asked += 1
        await self.answers.wait()
        if not self.works:
            raise Unavailable("down")


async def test_readiness_has_names_on_the_admin_port_and_no_body_on_the_public_ones(web: Web) -> None:
    thing = Thing(web)
    assert (await web.admin.get("/readyz")).json() == {"status": "ready"}
    fine = await web.http.get("/readyz")
    assert (fine.status_code, fine.content) == (200, b"")
    thing.works = False
    web.clock.advance(FRESH_SECONDS)
    named, bare = await web.admin.get("/readyz"), await web.http.get("/readyz")
    assert (named.status_code, named.headers["content-type"]) == (503, MEDIA_TYPE)
    assert named.json()["failed"] == [{"dependency": "thing", "kind": "embedded"}]
    assert (bare.status_code, bare.content, bare.headers["retry-after"]) == (503, b"", "2")
    for port in (web.http, web.admin):
        assert (await port.get("/healthz")).json() == {"status": "alive"}
    thing.works, web.readiness.draining = True, True
    assert (await web.admin.get("/readyz")).json()["type"].endswith(":draining")
    draining = await web.http.get("/readyz")
    assert (draining.status_code, draining.content) == (503, b"")
    assert _lasting(draining) == _lasting(bare), "what fails is not for strangers"


async def test_the_admin_port_serves_nothing_else(web: Web) -> None:
    assert b"router_http_requests_total" in (await web.admin.get("/metrics")).content
    for path in ("/api/messages", "/connect", "/openapi.json", "/asyncapi.json"):
        assert (await web.admin.get(path, headers=web.bearer("bob"))).status_code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "CONNECT", "TRACE"])
async def test_there_is_no_way_round_to_the_metrics(web: Web, method: str) -> None:
    async with web.serve() as server:
        for target in WAYS_ROUND:
            for more in (
                "",
                "upgrade: websocket\r\nconnection: upgrade\r\n",
                "upgrade: h2c\r\nconnection: upgrade\r\n",
            ):
                async with raw(server.port) as client:
                    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\n{more}connection: close\r\n\r\n"
                    await client.send(head.encode())
                    answer = await client.answer()
                assert int(answer.split()[1]) in NOT_OFFERED, (target, answer)
                assert b"router_" not in answer


async def test_nothing_public_moves_with_what_users_do(web: Web) -> None:
    """Two looks at all that a stranger can ask for: in between mail was sent to somebody, who is online at one time."""
    before = await _seen_by_a_stranger(web)
    for recipient in ("bob", "eve", "bob"):
        sent = await web.http.post("/api/send", json={"recipientId": recipient}, headers=web.bearer("alice"))
        assert sent.status_code == 202
        await web.route()
        await (await web.factory.online_store()).connect(Connection(BOB, "phone", "node", web.clock.now()), 20)
    assert web.count("router_messages_routed_total", outcome="hot") == 1
    assert await _seen_by_a_stranger(web) == before


async def _seen_by_a_stranger(web: Web) -> list[object]:
    paths = (
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/asyncapi.json",
        "/api/messages",
        "/api/send",
        "/connect",
        "/",
    )
    methods = ("GET", "HEAD", "POST", "OPTIONS")
    return [_lasting(await web.http.request(method, path)) for path in paths for method in methods]


def _lasting(answer: httpx.Response) -> object:
    fields = [field for field in answer.headers.multi_items() if field[0] not in CHANGES]
    return answer.status_code, fields, answer.content


async def test_a_flood_of_questions_asks_a_dependency_once_a_second(web: Web) -> None:
    """It needs no token, and would take what the mail needs of a slow dependency."""
    thing = Thing(web)
    thing.answers.clear()
    asking = [asyncio.create_task(port.get("/readyz")) for _ in range(25) for port in (web.http, web.admin)]
    for _ in range(100):
        await asyncio.sleep(0)
    # Who goes away takes nothing from the others.
    asking.pop(0).cancel()
    assert thing.asked == 1
    thing.answers.set()
    assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
    for asked in (1, 2, 3):
        for _ in range(10):
            assert (await web.http.get("/readyz")).status_code == 200
            web.clock.advance(FRESH_SECONDS / 10.5)
        assert thing.asked == asked
        web.clock.advance(FRESH_SECONDS / 10)


async def test_a_question_that_broke_is_asked_again(web: Web) -> None:
    broken = True

    async def probe() -> None:
        if broken:
            raise ValueError("a bug")

    web.readiness.depends("thing", "embedded", probe)
    assert (await web.http.get("/readyz")).status_code == 500
    broken = False
    assert (await web.http.get("/readyz")).status_code == 200
