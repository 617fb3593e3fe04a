"""The API as a client sees it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import ClientDisconnect
from structlog.testing import capture_logs

from router.core.user_queue import CompositeMessageQueue
from router.errors import Unavailable
from router.messages import Queued
from router.sampling import LINES
from router.web.api import MAX_ACK_IDS
from router.web.cors import Cors
from router.web.problems import MEDIA_TYPE, TYPE_PREFIX
from tests.contract.stage import Socket
from tests.support.edge import HOST, raw
from tests.support.protojson import by_oracle
from tests.web.conftest import APPS, ENVELOPE_BYTES, OUTBOUND_BYTES, PAIR_BURST, Web

pytestmark = pytest.mark.anyio
ENVELOPE = {"recipientId": "bob", "encryptedData": "AQID"}


def refusal(response: httpx.Response, status: int, slug: str) -> str:
    """Checks a problem document; returns its detail."""
    assert (response.status_code, response.headers["content-type"]) == (status, MEDIA_TYPE)
    document = response.json()
    assert document["type"] == TYPE_PREFIX + slug
    assert document["status"] == status
    detail: str = document["detail"]
    assert detail
    return detail


async def test_send_fetch_acknowledge(web: Web) -> None:
    sent = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    assert sent.status_code == 202
    assert set(sent.json()) == {"id"}
    await web.route()
    fetched = await web.http.get("/api/messages", headers=web.bearer("bob"))
    assert fetched.headers["cache-control"] == "no-store"
    envelope = {"recipientId": "urn:sm:user:bob", "encryptedData": "AQID"}
    assert fetched.json() == {"messages": [{"id": sent.json()["id"], "envelope": envelope}]}
    assert (await web.http.get("/api/messages", headers=web.bearer("eve"))).json() == {"messages": []}
    ids = {"messageIds": [sent.json()["id"], "unknown"]}
    for _ in range(2):
        acked = await web.http.post("/api/messages/ack", json=ids, headers=web.bearer("bob"))
        assert (acked.status_code, acked.content) == (204, b"")
        assert "content-length" not in acked.headers, "RFC 9110, section 8.6"
    assert fetched.headers["content-length"] == str(len(fetched.content))
    assert (await web.http.get("/api/messages", headers=web.bearer("bob"))).json() == {"messages": []}


async def test_a_strict_protobuf_reader_takes_every_200(web: Web) -> None:
    given = [
        {"recipientId": "bob"},
        {"recipient_id": "urn:sm:user:bob", "encrypted_data": "_-8", "priority": "0", "unknown": {"a": [1]}},
        {"recipientId": "bob", "signature": "", "isEphemeral": False, "priority": -1},
        {"recipientId": "bob", "encryptedSymmetricKey": "AA==", "priority": 7},
    ]
    for envelope in given:
        await web.http.post("/api/send", json=envelope, headers=web.bearer("alice"))
    await web.route()
    for limit in (1, 4):
        fetched = await web.http.get("/api/messages", params={"limit": limit}, headers=web.bearer("bob"))
        assert by_oracle(fetched.content, "QueuedMessageList", strict=True) == fetched.json()
    assert [message["envelope"].get("priority") for message in fetched.json()["messages"]] == [7, None, 0, -1]
    empty = await web.http.get("/api/messages", headers=web.bearer("eve"))
    assert by_oracle(empty.content, "QueuedMessageList", strict=True) == {}


async def test_one_key_is_one_message(web: Web) -> None:
    """RACES 1: the confirmation was lost and the sender tries again."""
    headers = {**web.bearer("alice"), "idempotency-key": "k"}
    ids = [(await web.http.post("/api/send", json=ENVELOPE, headers=headers)).json()["id"] for _ in range(3)]
    other = await web.http.post("/api/send", json=ENVELOPE, headers={**web.bearer("eve"), "idempotency-key": "k"})
    await web.route()
    fetched = (await web.http.get("/api/messages", headers=web.bearer("bob"))).json()["messages"]
    assert [message["id"] for message in fetched] == [ids[0], other.json()["id"]]
    assert len(set(ids)) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5", "", "00", "٣"])
async def test_fetch_with_an_invalid_limit_is_answered_400(web: Web, limit: str) -> None:
    refusal(
        await web.http.get("/api/messages", params={"limit": limit}, headers=web.bearer("bob")), 400, "invalid-request"
    )


@pytest.mark.parametrize(
    ("limit", "count"), [("1", 1), ("3", 3), ("501", 4), ("999999999999", 4), ("9" * 5000, 4), ("0" * 30 + "2", 2)]
)
async def test_fetch_returns_at_most_limit_messages(web: Web, limit: str, count: int) -> None:
    for _ in range(4):
        await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    await web.route()
    fetched = await web.http.get("/api/messages", params={"limit": limit}, headers=web.bearer("bob"))
    assert len(fetched.json()["messages"]) == count


async def test_a_page_has_50_messages_unless_told_and_500_at_most(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = list[int]()

    async def note(_: CompositeMessageQueue, user: str, limit: int) -> list[Queued]:
        del user
        limits.append(limit)
        return []

    monkeypatch.setattr(CompositeMessageQueue, "fetch", note)
    for query in ("", "?limit=", "?limit=499", "?limit=500", "?limit=501", "?limit=10000", "?limit=7&limit=8"):
        await web.http.get("/api/messages" + query, headers=web.bearer("bob"))
    assert limits == [50, 499, 500, 500, 500, 8]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messageIds": "x"}',
        b'{"messageIds": [1]}',
        b'{"messageIds": [null]}',
        b'{"messageIds": ["\\ud800"]}',
        b'{"message_ids": false}',
        b'{"messageIds": ["x"], "message_ids": ["y"]}',
        b'{"messageIds": ["x"], "messageIds": ["y"]}',
        b'{"messageIds": ["x"], "\\u006dessageIds": []}',
        b'{"message_ids": [], "message_ids": ["y"]}',
        b'{"messageIds": ["x"], "messageIds": null}',
        b'{"messageIds": ["x"], "unknown": {"a": 1, "a": 2}}',
        b"[" * 90_000,
    ],
)
async def test_a_bad_acknowledgement(web: Web, body: bytes) -> None:
    refusal(await web.http.post("/api/messages/ack", content=body, headers=web.bearer("bob")), 400, "invalid-request")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"messageIds": []}',
        b'{"messageIds": null}',
        b'{"message_ids": ["x"]}',
        b'{"messageIds": ["\\"", "x", "x"]}',
        b'{"messageIds": ["x"], "unknown": [{"a": 1}, {"a": %b}]}' % (b"9" * 5000),
    ],
)
async def test_an_acknowledgement_of_nothing(web: Web, body: bytes) -> None:
    response = await web.http.post("/api/messages/ack", content=body, headers=web.bearer("bob"))
    assert response.status_code == 204


@pytest.mark.parametrize("name", ["messageIds", "message_ids"])
async def test_an_acknowledgement_by_either_name(web: Web, name: str) -> None:
    sent = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    await web.route()
    fetched = await web.http.get("/api/messages", headers=web.bearer("bob"))
    assert [message["id"] for message in fetched.json()["messages"]] == [sent.json()["id"]]
    await web.http.post("/api/messages/ack", json={name: [sent.json()["id"]]}, headers=web.bearer("bob"))
    assert (await web.http.get("/api/messages", headers=web.bearer("bob"))).json() == {"messages": []}


async def test_too_many_ids(web: Web) -> None:
    body = {"messageIds": ["x"] * (MAX_ACK_IDS + 1)}
    refusal(await web.http.post("/api/messages/ack", json=body, headers=web.bearer("bob")), 400, "invalid-request")


async def test_sizes(web: Web) -> None:
    """RACES 37."""
    data = base64.b64encode(b"x" * ENVELOPE_BYTES).decode()
    fits, over = ({"recipientId": "bob", "encryptedData": data + more} for more in ("", "AAAA"))
    assert (await web.http.post("/api/send", json=fits, headers=web.bearer("alice"))).status_code == 202
    refusal(await web.http.post("/api/send", json=over, headers=web.bearer("alice")), 413, "envelope-too-large")
    huge = b" " * 100_000
    refusal(await web.http.post("/api/send", content=huge, headers=web.bearer("alice")), 413, "body-too-large")

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    refusal(await web.http.post("/api/send", content=endless(), headers=web.bearer("alice")), 413, "body-too-large")


async def test_media_types(web: Web) -> None:
    for name, value in (("content-type", "text/plain"), ("content-encoding", "gzip")):
        headers = {**web.bearer("alice"), name: value}
        response = await web.http.post("/api/send", content=json.dumps(ENVELOPE), headers=headers)
        refusal(response, 415, "unsupported-media-type")
    for more in ({"content-type": "Application/JSON; charset=utf-8"}, {"content-encoding": "Identity"}):
        headers = {**web.bearer("alice"), **more}
        assert (await web.http.post("/api/send", content=json.dumps(ENVELOPE), headers=headers)).status_code == 202


async def test_a_bad_envelope_says_what_is_wrong(web: Web) -> None:
    response = await web.http.post("/api/send", json={"recipientId": "a b"}, headers=web.bearer("alice"))
    assert "recipientId" in refusal(response, 400, "invalid-envelope")
    headers = {**web.bearer("alice"), "idempotency-key": "a b"}
    refusal(await web.http.post("/api/send", json=ENVELOPE, headers=headers), 400, "invalid-idempotency-key")
    assert web.count("router_requests_refused_total", reason="invalid-envelope") == 1


@pytest.mark.parametrize(
    "authorization", ["", "Basic abc", "Bearer", "Bearer  ", "Bearer a.b.c", "Bearer " + "x" * 9000]
)
async def test_no_token_no_entry(web: Web, authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    response = await web.http.get("/api/messages", headers=headers)
    refusal(response, 401, "unauthorized")
    sent = authorization.removeprefix("Bearer").strip() if authorization.startswith("Bearer") else ""
    assert response.headers["www-authenticate"] == 'Bearer realm="router"' + (', error="invalid_token"' if sent else "")


async def test_a_header_that_is_given_twice_is_not_guessed_at(web: Web) -> None:
    """A proxy in front may go by the other one."""
    alice, bob = web.bearer("alice"), web.bearer("bob")
    two_tokens = [("authorization", bob["authorization"]), ("authorization", alice["authorization"])]
    refusal(await web.http.get("/api/messages", headers=two_tokens), 401, "unauthorized")
    two_keys = [*alice.items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
    refusal(await web.http.post("/api/send", json=ENVELOPE, headers=two_keys), 400, "invalid-idempotency-key")


async def test_paths_are_exact(web: Web) -> None:
    """A redirect would carry the token to wherever the Host header says, over http:// at that."""
    for path in ("/api/send/", "/API/send", "/"):
        refusal(await web.http.post(path, json=ENVELOPE, headers=web.bearer("alice")), 404, "not-found")
    head = await web.http.head("/api/messages", headers=web.bearer("bob"))
    assert (head.status_code, head.content) == (200, b"")


async def test_a_sender_that_goes_away_in_the_middle_is_no_fault(web: Web) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield b'{"recipientId": '
        raise ClientDisconnect

    # An AssertionError is what httpx has for an application that answers nothing.
    with capture_logs() as logged, pytest.raises(AssertionError):
        await web.http.post("/api/send", content=torn(), headers=web.bearer("alice"))
    assert web.count("router_http_requests_total", route="/api/send", status="499") == 1
    assert web.count("router_http_requests_total", route="/api/send", status="500") == 0
    assert logged == []


async def test_the_rate_limit_is_each_senders_own(web: Web) -> None:
    statuses = [
        (await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))).status_code for _ in range(6)
    ]
    assert statuses == [202] * 5 + [429]
    limited = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    refusal(limited, 429, "rate-limited")
    assert int(limited.headers["retry-after"]) >= 1
    assert (await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("eve"))).status_code == 202
    web.clock.advance(1)
    assert (await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))).status_code == 202
    web.clock.time -= 3_600_000_000
    back = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("eve"))
    assert back.status_code == 202, "a clock that steps back takes nothing from anybody"
    web.clock.advance(7_200)
    late = [(await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("eve"))).status_code for _ in range(6)]
    assert late == [202] * 5 + [429], "and a long silence saves up no more than a burst"


async def test_the_limit_of_a_pair_tells_nothing_of_the_recipient(web: Web) -> None:
    """Online, with mail, or unknown: what is refused, when, for how long and in what words is the same."""
    connection = await web.manager.connect("urn:sm:user:online", Socket(), None)
    await web.http.post("/api/send", json={"recipientId": "full"}, headers=web.bearer("eve"))
    await web.route()
    refused = []
    for recipient in ("online", "full", "nobody"):
        count = 0
        while True:
            web.clock.advance(1)  # more than that the sender's own limit does not ask for
            sent = await web.http.post(
                "/api/send", json={"recipientId": recipient}, headers=web.bearer(f"for-{recipient}")
            )
            if sent.status_code != 202:
                break
            count += 1
        assert "one recipient" in refusal(sent, 429, "rate-limited")
        refused.append((count, sent.content, sent.headers["retry-after"]))
    await web.manager.disconnect(connection)
    assert len(set(refused)) == 1
    assert refused[0][0] > PAIR_BURST


async def test_the_budget_of_a_sender_tells_nothing_of_the_recipients(web: Web) -> None:
    """Online, with mail, or unknown: what is refused, when, for how long and in what words is the same."""
    connection = await web.manager.connect("urn:sm:user:online", Socket(), None)
    await web.http.post("/api/send", json={"recipientId": "queued"}, headers=web.bearer("eve"))
    await web.route()
    refused = []
    for recipient in ("online", "queued", "nobody"):
        for count in range(OUTBOUND_BYTES // 500):
            web.clock.advance(1)  # more than that the sender's own limit does not ask for, nor that of a pair
            to = recipient if count % 3 == 0 else f"other{count}"
            sent = await web.http.post("/api/send", json={"recipientId": to}, headers=web.bearer(f"for-{recipient}"))
            if sent.status_code != 202:
                break
        assert "over all recipients" in refusal(sent, 429, "rate-limited")
        refused.append((count, sent.content, sent.headers["retry-after"]))
    await web.manager.disconnect(connection)
    assert len(set(refused)) == 1
    assert refused[0][0] > OUTBOUND_BYTES // 1500


async def test_a_failing_dependency_is_never_a_2xx(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object, message: object) -> None:
        raise Unavailable(f"the disk under {message} failed")

    monkeypatch.setattr(type(await web.factory.ingress_producer()), "publish", fail)
    response = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    assert "disk" not in refusal(response, 503, "unavailable")
    assert response.headers["retry-after"]


async def test_a_bug_is_a_problem_without_a_traceback(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bug(_: object, message: object) -> None:
        raise ZeroDivisionError(message)

    monkeypatch.setattr(type(await web.factory.ingress_producer()), "publish", bug)
    response = await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    refusal(response, 500, "internal")
    assert b"ZeroDivision" not in response.content


async def test_browsers_get_cors_on_every_answer(web: Web) -> None:
    origin = {"origin": "https://chat.example"}
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answers = [
        await web.http.options("/api/send", headers={**origin, **preflight}),
        await web.http.get("/api/messages", headers={**origin, **web.bearer("bob")}),
        await web.http.get("/api/messages", headers=origin),
        await web.http.get("/nowhere", headers=origin),
        await web.http.put("/api/send", headers=origin),
    ]
    assert [answer.status_code for answer in answers] == [204, 200, 401, 404, 405]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["vary"] == "Origin"
    assert set(answers[0].headers["access-control-allow-headers"].split(", ")) == {
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "X-Request-Id",
        "traceparent",
        "tracestate",
    }
    assert answers[4].headers["allow"] == "POST"
    stranger = await web.http.get("/api/messages", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers


ALWAYS_READABLE = {"cache-control", "content-length", "content-type"}
"""Fetch Standard, "CORS-safelisted response-header name"; as far as the router sends them."""
OF_BROWSER_OR_CONNECTION = {"connection", "upgrade", "vary"}


async def test_a_page_can_read_what_answers_carry(web: Web) -> None:
    """Over a real socket: the transport adds fields too."""
    bearer = web.bearer("alice")
    async with web.serve() as server:
        url = f"http://{HOST}:{server.port}"
        async with httpx.AsyncClient(base_url=url, headers={"origin": "https://chat.example"}) as page:
            many = [await page.post("/api/send", json=ENVELOPE, headers=bearer) for _ in range(PAIR_BURST + 1)]
            answers = [
                *many,
                await page.get("/api/messages", headers=bearer),
                await page.post("/api/messages/ack", json={"messageIds": []}, headers=bearer),
                await page.post("/api/messages/ack", content=b"{", headers=bearer),
                await page.get("/api/messages"),
                await page.get("/nowhere"),
                await page.put("/api/send"),
                await page.get("/connect"),
                await page.get("/readyz"),
                await page.post("/api/send", content=b"x" * 100_000, headers=bearer),
            ]
    assert {answer.status_code for answer in answers} == {200, 202, 204, 400, 401, 404, 405, 413, 426, 429}
    carried = {name for answer in answers for name in answer.headers if not name.startswith("access-control-")}
    for answer in answers:
        shown = {name.lower() for name in answer.headers["access-control-expose-headers"].split(", ")}
        assert carried - ALWAYS_READABLE - OF_BROWSER_OR_CONNECTION == shown


@pytest.mark.parametrize(("origin", "listed"), [*((app, True) for app in APPS), ("capacitor://elsewhere", False)])
async def test_apps_call_and_connect_where_they_are_listed(web: Web, origin: str, listed: bool) -> None:
    """A handshake follows the list of requests."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "traceparent,tracestate"}
    answers = [
        await web.http.options("/api/send", headers={"origin": origin, **asks}),
        await web.http.get("/api/messages", headers={"origin": origin, **web.bearer("bob")}),
    ]
    assert answers[0].headers["access-control-max-age"] == "86400"
    for answer in answers:
        assert answer.headers.get("access-control-allow-origin") == (origin if listed else None)
        assert answer.headers.get("access-control-allow-credentials") == ("true" if listed else None)
        assert answer.headers["vary"] == "Origin"
    async with web.serve() as server, raw(server.port) as socket:
        status = await socket.upgrade(web.token("bob"), [b"origin: " + origin.encode()])
    assert status.split()[1] == (b"101" if listed else b"403")


async def test_credentials_are_for_listed_origins(web: Web) -> None:
    """Where anybody may call, a browser must not add what it keeps for this host."""
    web.context.cors = Cors(["*", "https://chat.example"])
    listed = await web.http.get("/healthz", headers={"origin": "https://chat.example:443"})
    assert listed.headers["access-control-allow-origin"] == "https://chat.example:443"
    assert listed.headers["access-control-allow-credentials"] == "true"
    anybody = await web.http.get("/healthz", headers={"origin": "https://other.example"})
    assert anybody.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in anybody.headers


async def test_request_ids(web: Web) -> None:
    assert (await web.http.get("/healthz", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
    for insane in ("a b", "a" * 65, "", "a\tb", "ä"):
        made = (await web.http.get("/healthz", headers={b"x-request-id": insane.encode("latin-1")})).headers
        assert re.fullmatch("[0-9a-f]{16}", made["x-request-id"])


async def test_strangers_cannot_fill_the_log(web: Web) -> None:
    """Each refusal is counted; of those alike some have a line, which says nothing but the reason."""
    with capture_logs() as logged:
        for _ in range(LINES + 20):
            await web.http.get("/api/messages?secret-route", headers={"authorization": "Bearer no-token"})
        web.context.refusals.finish()
    *lines, last = logged
    assert [line["event"] for line in lines] == ["refused"] * LINES
    assert (last["event"], last["reason"], last["left_out"]) == ("more of the same", "invalid_token", 20)
    assert "secret-route" not in repr(logged)
    counted = web.factory.metrics.registry.get_sample_value(
        "router_requests_refused_total", {"reason": "invalid_token"}
    )
    assert counted == LINES + 20
