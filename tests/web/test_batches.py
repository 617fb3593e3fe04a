"""Several messages in one request: each is answered as if it was sent alone, and none overtakes another."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from router.core.work_budget import AT_ONCE, CALL, CALL_BYTES, PUBLISHED, SEND
from router.errors import NoRoom, Refused, RouterError, Unavailable
from router.interfaces import IngressProducer
from router.messages import Message
from router.web.batches import MOST_BYTES, MOST_MESSAGES
from tests.web.conftest import ENVELOPE_BYTES, Web
from tests.web.test_api import refusal

pytestmark = pytest.mark.anyio
BOB, EVE = ({"recipientId": name, "encryptedData": "AQID"} for name in ("bob", "eve"))


def messages(*envelopes: object) -> dict[str, Any]:
    return {"messages": [{"envelope": envelope} for envelope in envelopes]}


async def post(web: Web, body: object, user: str = "alice") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await web.http.post("/api/send/batch", content=content, headers=web.bearer(user))


async def outcomes(web: Web, body: object, user: str = "alice") -> list[str]:
    """The id of each message, or the end of its problem's type."""
    response = await post(web, body, user)
    assert response.status_code == 202
    assert set(response.json()) == {"results"}
    found = []
    for result in response.json()["results"]:
        ((kind, value),) = result.items()
        assert kind in ("id", "error")
        found.append(value if kind == "id" else value["type"].rpartition(":")[2])
    return found


async def fetched(web: Web, user: str) -> list[str]:
    await web.route()
    page = await web.http.get("/api/messages", params={"limit": 500}, headers=web.bearer(user))
    return [message["id"] for message in page.json()["messages"]]


async def single(web: Web, envelope: object, user: str, **headers: str) -> httpx.Response:
    content = json.dumps(envelope)
    return await web.http.post("/api/send", content=content, headers={**web.bearer(user), **headers})


async def test_a_batch_arrives_in_its_order(web: Web) -> None:
    ids = await outcomes(web, messages(BOB, EVE, BOB, BOB))
    assert await fetched(web, "bob") == [ids[0], ids[2], ids[3]]
    assert await fetched(web, "eve") == [ids[1]]
    assert web.count("router_messages_accepted_total") == 4


async def test_a_key_is_the_same_in_a_batch_and_alone(web: Web) -> None:
    """RACES 1: whichever way a message is sent again, it is one message."""
    sent = await single(web, BOB, "alice", **{"idempotency-key": '"k"'})
    batch = {
        "messages": [
            {"envelope": BOB, "idempotencyKey": "k"},
            {"envelope": BOB, "idempotency_key": "k"},
            {"envelope": EVE, "idempotencyKey": "k"},
            {"envelope": BOB, "idempotencyKey": None},
        ]
    }
    ids = await outcomes(web, batch)
    assert ids[:2] == [sent.json()["id"]] * 2
    assert len(set(ids)) == 3
    assert await fetched(web, "bob") == [ids[0], ids[3]]


REFUSED: Sequence[tuple[object, dict[str, str]]] = (
    ({"recipientId": "a b"}, {}),
    (BOB, {"idempotency-key": "a b"}),
    (BOB, {"idempotency-key": ""}),
    ({}, {}),
    (5, {}),
    ({"recipientId": "bob", "encryptedData": base64.b64encode(bytes(ENVELOPE_BYTES + 1)).decode()}, {}),
    ({"recipientId": "bob", "unknown": "x" * 20_000}, {}),
)


async def test_each_is_refused_as_if_it_was_sent_alone(web: Web) -> None:
    """And those around it are accepted."""
    for number, (envelope, headers) in enumerate(REFUSED):
        keyed = {"idempotencyKey": headers["idempotency-key"]} if headers else {}
        batch = {"messages": [{"envelope": BOB}, {"envelope": envelope, **keyed}, {"envelope": BOB}]}
        before = web.count("router_requests_refused_total", reason="invalid-envelope")
        response = await post(web, batch, f"alice-{number}")
        first, refused, last = response.json()["results"]
        assert (set(first), set(last)) == ({"id"}, {"id"})
        counted = web.count("router_requests_refused_total", reason="invalid-envelope") - before
        alone = await single(web, envelope, "alone", **headers)
        if "unknown" in str(envelope):
            for one in (refused["error"], document := alone.json()):
                assert "but the limit is 16784" in one.pop("detail")
            assert refused["error"] == document
        else:
            assert refused["error"] == alone.json()
        assert counted == (refused["error"]["type"].endswith("invalid-envelope"))
        assert "retry-after" not in response.headers
        web.clock.advance(60)


async def test_a_member_that_is_given_twice_is_the_fault_of_its_message(web: Web) -> None:
    body = b'{"messages": [{"envelope": {"recipientId": "bob", "recipientId": "eve"}}, {"envelope": %b}]}'
    found = await outcomes(web, body % json.dumps(BOB).encode())
    assert found[0] == "invalid-envelope"
    assert await fetched(web, "bob") == [found[1]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"messages": []}',
        b'{"messages": null}',
        b'{"messages": [{}]}',
        b'{"messages": [1]}',
        b'{"messages": [{"envelope": {]}]}',
        b'{"messages": [{"envelope": {}, "idempotencyKey": 1}]}',
        b'{"messages": [{"envelope": {}, "idempotencyKey": "a", "idempotency_key": "b"}]}',
        b'{"messages": [{"envelope": {}, "envelope": {}}]}',
        b'{"messages": [{"envelope": {}, "\\u0065nvelope": {}}]}',
        b'{"messages": [{"envelope": {}, "idempotencyKey": "a", "idempotencyKey": "b"}]}',
        b'{"messages": [{"envelope": {}}], "messages": [{"envelope": {}}]}',
        b'{"messages": [{"envelope": {"recipientId": "bob"}}], "x": "\xff"}',
        b'{"messages": %b}' % (b"[" * 9_000),
        json.dumps(messages(*[BOB] * (MOST_MESSAGES + 1))).encode(),
    ],
)
async def test_what_is_no_batch_is_refused_whole(web: Web, body: bytes) -> None:
    refusal(await post(web, body), 400, "invalid-request")
    assert await fetched(web, "bob") == []


async def test_bounds_of_a_batch(web: Web) -> None:
    found = await outcomes(web, messages(*[BOB] * MOST_MESSAGES))
    assert len(found) == MOST_MESSAGES
    whole = json.dumps(messages(EVE)).encode()
    assert len(await outcomes(web, whole.ljust(MOST_BYTES), "carol")) == 1
    refusal(await post(web, whole.ljust(MOST_BYTES + 1), "carol"), 413, "body-too-large")


async def test_a_batch_has_no_key_of_its_own(web: Web) -> None:
    headers = {**web.bearer("alice"), "idempotency-key": "k"}
    refusal(await web.http.post("/api/send/batch", json=messages(BOB), headers=headers), 400, "invalid-idempotency-key")


async def test_unknown_members_are_ignored(web: Web) -> None:
    batch = {"messages": [{"envelope": BOB, "unknown": [{"a": 10**30}], "note": 'a "quoted" one'}], "more": "x"}
    assert await outcomes(web, batch) == await fetched(web, "bob")


# Limits.


async def test_each_message_counts_as_a_send(web: Web) -> None:
    """And the answer says when the last of those that may come later may."""
    response = await post(web, messages(*[BOB, EVE] * 4))
    results = response.json()["results"]
    assert [set(result) for result in results] == [{"id"}] * 5 + [{"error"}] * 3
    alone = await single(web, BOB, "alice")
    assert results[-1]["error"] == alone.json()
    assert response.headers["retry-after"] == alone.headers["retry-after"]
    web.clock.advance(1)
    assert (await single(web, BOB, "alice")).status_code == 202, "what is refused takes nothing"


async def test_whoever_may_send_no_more_sends_nothing_behind_it(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 53: time goes by while a batch is read, and the limit would let some more through."""
    admit = type(web.limits).admit

    def later(self: Any, sender: bytes) -> None:
        try:
            admit(self, sender)
        except RouterError:
            web.clock.advance(2)
            raise

    monkeypatch.setattr(type(web.limits), "admit", later)
    found = await outcomes(web, messages(*[BOB] * 8))
    assert found[5:] == ["rate-limited"] * 3
    assert await fetched(web, "bob") == found[:5]


async def test_what_a_batch_costs(web: Web) -> None:
    """As much work as its messages sent alone, less what the other requests would have cost."""
    body = json.dumps(messages(*[BOB] * 30)).encode()
    assert len(await outcomes(web, body)) == 30
    spent = web.work.spent("urn:sm:user:alice")
    values = body.count(b",") + body.count(b"{") + body.count(b"[")
    assert round(spent) == CALL + 30 * SEND + len(body) // 1024 + values // 32


async def test_a_long_batch_takes_the_memory_of_several_requests(web: Web) -> None:
    """So that one user holds no more by batches than by sends; a short one counts as one request."""
    seen = []

    async def body() -> AsyncIterator[bytes]:
        yield b'{"messages": '
        seen.append(web.work.statistics().calls)
        yield b'[{"envelope": {"recipientId": "bob"}}]}'

    for length in (None, MOST_BYTES, 50_000):
        headers = web.bearer("alice") | ({"content-length": str(length)} if length else {})
        assert (await web.http.post("/api/send/batch", content=body(), headers=headers)).status_code == 202
    assert seen == [1 + MOST_BYTES // CALL_BYTES] * 2 + [1]


async def test_a_batch_takes_turns(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others come in between: no part of it is more than a user may have under way."""
    parts = []
    turn = web.work._enters

    def note(own: Any, units: int) -> bool:
        parts.append(units)
        return turn(own, units)

    monkeypatch.setattr(web.work, "_enters", note)
    await outcomes(web, messages(*[BOB] * 45))
    assert parts.count(AT_ONCE) == 4
    assert parts[-1] == 45 * PUBLISHED, "they are published alone"
    assert max(parts) == 45 * PUBLISHED


# Failures.


async def failing(web: Web, monkeypatch: pytest.MonkeyPatch, *failures: RouterError | None) -> None:
    """The next publish answers this."""
    producer: Any = type(await web.factory.ingress_producer())
    publish = producer.publish

    async def fail(self: IngressProducer, sent: Sequence[Message]) -> list[RouterError | None]:
        monkeypatch.undo()
        done = [message for message, failure in zip(sent, failures, strict=True) if failure is None]
        await publish(self, done)
        return list(failures)

    monkeypatch.setattr(producer, "publish", fail)


async def test_each_message_has_the_outcome_of_its_publish(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    down = Unavailable("the disk under it failed")
    await failing(web, monkeypatch, None, down, Refused("too large"), None)
    response = await post(web, messages(BOB, EVE, {}, EVE, EVE))
    results = response.json()["results"]
    assert [result.get("error", {}).get("status") for result in results] == [None, 503, 400, 503, None]
    assert response.headers["retry-after"]
    assert "disk" not in response.text
    assert await fetched(web, "bob") == [results[0]["id"]]
    assert await fetched(web, "eve") == [results[4]["id"]]
    assert web.count("router_messages_accepted_total") == 2
    assert web.count("router_requests_refused_total", reason="unavailable") == 2


@pytest.mark.parametrize("error", [Unavailable("the disk failed"), NoRoom("the disk is nearly full")])
async def test_a_failing_dependency_is_never_a_2xx(
    web: Web, monkeypatch: pytest.MonkeyPatch, error: RouterError
) -> None:
    """Where it took none of them: whether it says so of each or of all."""
    await failing(web, monkeypatch, error, error)
    refusal(await post(web, messages(BOB, {}, EVE)), 503, "unavailable")

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(await web.factory.ingress_producer()), "publish", fail)
    response = await post(web, messages(BOB, {}, EVE))
    refusal(response, 503, "unavailable")
    assert response.headers["retry-after"]
    assert await fetched(web, "bob") == []
