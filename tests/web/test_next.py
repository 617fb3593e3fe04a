"""``POST /api/messages/next``: an acknowledgement and a fetch in one request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import httpx
import pytest

from router.core.user_queue import CompositeMessageQueue
from router.errors import Unavailable
from router.messages import Queued
from router.web.api import MAX_ACK_BYTES, MAX_ACK_IDS, MAX_ID_LENGTH
from router.web.fetch_coalescing import FETCHES_AT_ONCE
from tests.support.edge import eventually
from tests.support.protojson import by_oracle
from tests.web.conftest import Web
from tests.web.test_api import ENVELOPE, refusal

pytestmark = pytest.mark.anyio
NEXT = "/api/messages/next"


async def filled(web: Web, count: int) -> list[str]:
    """The ids of so many messages for bob."""
    ids = [
        (await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer(f"sender-{number}"))).json()["id"]
        for number in range(count)
    ]
    await web.route()
    return ids


async def ask(web: Web, **body: object) -> httpx.Response:
    return await web.http.post(NEXT, json=body, headers=web.bearer("bob"))


def ids_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [message["id"] for message in response.json()["messages"]]


async def test_the_answer_is_that_of_a_fetch_after_the_acknowledgement(web: Web) -> None:
    """Byte for byte, its header fields too."""
    first, *rest = await filled(web, 4)
    answer = await ask(web, messageIds=[first], limit=2)
    assert ids_of(answer) == rest[:2]
    fetched = await web.http.get("/api/messages?limit=2", headers=web.bearer("bob"))
    assert answer.content == fetched.content
    own = {"x-request-id"}
    assert {*answer.headers.items()} - {*fetched.headers.items()} == {(n, answer.headers[n]) for n in own}
    assert answer.headers.keys() == fetched.headers.keys()
    assert by_oracle(answer.content, "QueuedMessageList", strict=True) == fetched.json()
    assert ids_of(await ask(web, messageIds=rest)) == []
    assert (await web.http.get("/api/messages", headers=web.bearer("bob"))).json() == {"messages": []}


async def test_both_are_counted(web: Web) -> None:
    ids = await filled(web, 3)
    await ask(web, messageIds=ids[:1])
    assert web.count("router_ids_acknowledged_total") == 1
    assert web.count("router_messages_fetched_total") == 2
    assert web.count("router_http_requests_total", route=NEXT, status="200") == 1


@pytest.mark.parametrize(
    "body", [b"{}", b'{"messageIds": []}', b'{"messageIds": null, "limit": null}', b'{"message_ids": [], "x": {}}']
)
async def test_without_ids_it_is_a_fetch(web: Web, body: bytes) -> None:
    ids = await filled(web, 2)
    assert ids_of(await web.http.post(NEXT, content=body, headers=web.bearer("bob"))) == ids


async def test_ids_of_nobody_and_of_others_are_ignored(web: Web) -> None:
    ids = await filled(web, 2)
    hers = await web.http.post(NEXT, json={"messageIds": [*ids, "unknown", ""]}, headers=web.bearer("eve"))
    assert ids_of(hers) == []
    assert ids_of(await ask(web, messageIds=["unknown", ids[0], ids[0], "x" * (MAX_ID_LENGTH + 1)])) == ids[1:]


@pytest.mark.parametrize("name", ["messageIds", "message_ids"])
async def test_ids_by_either_name(web: Web, name: str) -> None:
    ids = await filled(web, 2)
    assert ids_of(await ask(web, **{name: ids[:1]})) == ids[1:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"messageIds": "x"}',
        b'{"messageIds": [1]}',
        b'{"messageIds": ["x"], "message_ids": ["y"]}',
        b'{"messageIds": ["x"], "messageIds": ["y"]}',
        b'{"messageIds": [], "messageIds": ["x"], "limit": 5}',
        b'{"messageIds": ["x"], "\\u006dessageIds": []}',
        b'{"limit": 5, "limit": 6}',
        b'{"limit": 5, "limit": null}',
        b'{"limit": 5, "\\u006cimit": "6"}',
        b'{"messageIds": ["x"], "unknown": {"a": 1, "a": 2}}',
        b"[" * 90_000,
    ],
)
async def test_a_bad_body(web: Web, body: bytes) -> None:
    ids = await filled(web, 1)
    refusal(await web.http.post(NEXT, content=body, headers=web.bearer("bob")), 400, "invalid-request")
    assert ids_of(await ask(web)) == ids


@pytest.mark.parametrize(
    "limit", ["0", "-1", '"x"', "1.5", '""', '"00"', '"1.0"', "true", "[1]", "{}", "1e999", "9" * 5000, '"\u0663"']
)
async def test_a_bad_limit(web: Web, limit: str) -> None:
    """And nothing is acknowledged."""
    ids = await filled(web, 1)
    body = f'{{"messageIds": ["{ids[0]}"], "limit": {limit}}}'
    refusal(await web.http.post(NEXT, content=body, headers=web.bearer("bob")), 400, "invalid-request")
    assert ids_of(await ask(web)) == ids


@pytest.mark.parametrize(
    ("limit", "count"),
    [("1", 1), ("3", 3), ("3.0", 3), ("2e0", 2), ('"2"', 2), ("501", 4), ("9" * 300, 4), (f'"{"9" * 5000}"', 4)],
)
async def test_a_limit(web: Web, limit: str, count: int) -> None:
    await filled(web, 5)
    (first, *_) = ids_of(await ask(web, limit=1))
    body = f'{{"messageIds": ["{first}"], "limit": {limit}}}'
    assert len(ids_of(await web.http.post(NEXT, content=body, headers=web.bearer("bob")))) == count


async def test_a_page_has_50_messages_unless_told_and_500_at_most(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = list[int]()

    async def note(_: CompositeMessageQueue, user: str, ids: Sequence[str], limit: int) -> list[Queued]:
        del user, ids
        limits.append(limit)
        return []

    monkeypatch.setattr(CompositeMessageQueue, "next", note)
    for more in ({}, {"limit": None}, {"limit": 499}, {"limit": 500}, {"limit": 501}, {"limit": 10**30}):
        await ask(web, messageIds=["x"], **more)
    assert limits == [50, 50, 499, 500, 500, 500]


async def test_bounds_are_those_of_an_acknowledgement(web: Web) -> None:
    longest = [f"{number:0{MAX_ID_LENGTH}}" for number in range(MAX_ACK_IDS)]
    body = json.dumps({"messageIds": longest, "limit": 500})
    assert len(body) < MAX_ACK_BYTES
    assert ids_of(await web.http.post(NEXT, content=body, headers=web.bearer("bob"))) == []
    refusal(await ask(web, messageIds=["x"] * (MAX_ACK_IDS + 1)), 400, "invalid-request")
    refusal(await ask(web, messageIds=["x" * MAX_ID_LENGTH] * 2 * MAX_ACK_IDS), 413, "body-too-large")


async def test_it_is_refused_like_the_two_calls(web: Web) -> None:
    refusal(await web.http.post(NEXT, json={}), 401, "unauthorized")
    plain = {**web.bearer("bob"), "content-type": "text/plain"}
    refusal(await web.http.post(NEXT, content="{}", headers=plain), 415, "unsupported-media-type")
    refused = await web.http.get(NEXT, headers=web.bearer("bob"))
    refusal(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "POST"
    origin = {**web.bearer("bob"), "origin": "https://chat.example"}
    answered = await web.http.post(NEXT, json={}, headers=origin)
    assert answered.headers["access-control-allow-origin"] == "https://chat.example"


@pytest.mark.parametrize("fails", ["ack_and_read", "read"])
async def test_a_store_that_fails_before_or_behind_the_acknowledgement_loses_nothing(
    web: Web, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """RACES 52: 503, and whatever was not acknowledged is in the next page."""
    ids = await filled(web, 3)
    queue = await web.factory.message_queue()
    store = queue._online if fails == "ack_and_read" else queue._cold

    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("simulated")

    with monkeypatch.context() as patch:
        patch.setattr(store, fails, fail)
        failed = await ask(web, messageIds=ids[:1])
    refusal(failed, 503, "unavailable")
    assert int(failed.headers["retry-after"]) >= 1
    assert ids_of(await web.http.get("/api/messages", headers=web.bearer("bob"))) == ids[fails == "read" :]
    assert ids_of(await ask(web, messageIds=ids[:1])) == ids[1:], "it may be repeated"


async def test_a_page_that_is_shared_begins_after_the_acknowledgement(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 52: others of the user fetch all the while, and began to before."""
    ids = await filled(web, 3)
    fetch, going, gate = CompositeMessageQueue.fetch, list[int](), asyncio.Event()

    async def slow(queue: CompositeMessageQueue, user: str, limit: int) -> list[Queued]:
        page = await fetch(queue, user, limit)
        going.append(limit)
        await gate.wait()
        return page

    monkeypatch.setattr(CompositeMessageQueue, "fetch", slow)
    headers = web.bearer("bob")
    others = [asyncio.create_task(web.http.get("/api/messages", headers=headers)) for _ in range(FETCHES_AT_ONCE)]
    await eventually(lambda: len(going) == FETCHES_AT_ONCE)
    answers = [asyncio.create_task(ask(web, messageIds=[id_])) for id_ in ids[:2]]
    await eventually(lambda: web.count("router_ids_acknowledged_total") == 2)
    late = asyncio.create_task(web.http.get("/api/messages", headers=headers))
    await eventually(lambda: web.work.statistics().calls == FETCHES_AT_ONCE + 3)
    gate.set()
    assert [ids_of(answer) for answer in await asyncio.gather(*others)] == [ids] * FETCHES_AT_ONCE
    assert [ids_of(answer) for answer in await asyncio.gather(*answers, late)] == [ids[2:]] * 3
    assert len(going) == FETCHES_AT_ONCE + 1, "three have shared one page"
