"""Traces, from the request to the route: what is in them, and what never is (docs/tracing.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from router.errors import Unavailable
from router.spans import log_fields
from tests.support.edge import eventually, raw
from tests.support.recorded_spans import SPAN, TRACE, TRACEPARENT, Recorder, context_of, ids, parent
from tests.web.conftest import Web, opened
from tests.web.test_api import ENVELOPE

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def traced(anyio_backend: str, tmp_path: Path, recorder: Recorder) -> AsyncIterator[Web]:
    async with opened(tmp_path, recorder.open) as made:
        yield made


def sent_by(web: Web, user: str, **headers: str) -> dict[str, str]:
    return web.bearer(user) | headers


async def test_a_send_is_in_the_trace_of_its_request(traced: Web, recorder: Recorder) -> None:
    sent = await traced.http.post("/api/send", json=ENVELOPE, headers=sent_by(traced, "alice", traceparent=TRACEPARENT))
    request, ingress, route = map(recorder.one, ("POST /api/send", "ingress", "route"))
    assert {ids(span)[0] for span in (request, ingress, route)} == {TRACE}
    assert (parent(request), parent(ingress), parent(route)) == (SPAN, ids(request)[1], ids(ingress)[1])
    assert (request.kind, ingress.kind, route.kind) == (SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.INTERNAL)
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/send",
        "http.response.status_code": 202,
    }
    assert route.attributes == {"messaging.message.id": sent.json()["id"], "router.outcome": "cold"}
    assert not any(span.links for span in (request, ingress, route))


async def test_fetch_and_acknowledgement_are_in_theirs(traced: Web, recorder: Recorder) -> None:
    sent = await traced.http.post("/api/send", json=ENVELOPE, headers=sent_by(traced, "alice"))
    body = {"messageIds": [sent.json()["id"]]}
    await traced.http.get("/api/messages", headers=sent_by(traced, "bob", traceparent=TRACEPARENT))
    await traced.http.post("/api/messages/ack", json=body, headers=sent_by(traced, "bob"))
    await traced.http.post("/api/messages/next", json=body, headers=sent_by(traced, "bob"))
    first, second = recorder.named("fetch")
    ack, request = recorder.one("ack"), recorder.one("GET /api/messages")
    assert (ids(first)[0], parent(first)) == (TRACE, ids(request)[1])
    assert first.attributes == {"messaging.batch.message_count": 1}
    assert second.attributes == {"messaging.batch.message_count": 0, "router.acknowledged": 1}
    assert ack.attributes == {"router.acknowledged": 1}
    assert parent(ack) == ids(recorder.one("POST /api/messages/ack"))[1]


async def test_a_batch_is_one_ingress_and_a_route_for_each_message(traced: Web, recorder: Recorder) -> None:
    body = {"messages": [{"envelope": ENVELOPE}, {"envelope": ENVELOPE | {"recipientId": "eve"}}]}
    await traced.http.post("/api/send/batch", json=body, headers=sent_by(traced, "alice"))
    ingress, routes = recorder.one("ingress"), recorder.named("route")
    assert ingress.attributes == {"messaging.batch.message_count": 2}
    assert [parent(route) for route in routes] == [ids(ingress)[1]] * 2


async def test_sends_that_are_routed_together_stay_in_their_traces(traced: Web, recorder: Recorder) -> None:
    """They are in one transaction; the recipient of one is in no trace of the other."""
    other = TRACEPARENT.replace(TRACE, TRACE[::-1])
    async with traced.serve() as server, raw(server.port) as one, raw(server.port) as two:
        for client, user, trace in ((one, "alice", TRACEPARENT), (two, "mallory", other)):
            body = json.dumps(ENVELOPE).encode()
            fields = [
                f"authorization: Bearer {traced.token(user)}",
                f"traceparent: {trace}",
                f"content-length: {len(body)}",
            ]
            lines = ["POST /api/send HTTP/1.1", "host: x", *fields, "", ""]
            await client.send("\r\n".join(lines).encode() + body)
        await eventually(lambda: len(recorder.named("POST /api/send")) == 2)
    assert sorted(ids(route)[0] for route in recorder.named("route")) == sorted([TRACE, TRACE[::-1]])


async def test_a_request_without_a_trace_begins_one(traced: Web, recorder: Recorder) -> None:
    await traced.http.post("/api/send", json=ENVELOPE, headers=sent_by(traced, "alice", traceparent="00-not-valid-01"))
    request, route = recorder.one("POST /api/send"), recorder.one("route")
    assert parent(request) is None
    assert ids(route)[0] == ids(request)[0] != TRACE


async def test_a_trace_that_nobody_samples_has_no_spans(traced: Web, recorder: Recorder) -> None:
    unsampled = TRACEPARENT.removesuffix("01") + "00"
    await traced.http.post("/api/send", json=ENVELOPE, headers=sent_by(traced, "alice", traceparent=unsampled))
    await traced.http.get("/api/messages", headers=sent_by(traced, "bob", traceparent=unsampled))
    assert recorder.ended == ()


async def test_no_span_names_a_user_a_token_a_payload_or_a_query(traced: Web, recorder: Recorder) -> None:
    """Of requests that succeed, and of those that are refused or fail."""
    token, key = traced.token("alice"), {"idempotency-key": "MARKER-KEY"}
    await traced.http.post("/api/send", json=ENVELOPE, headers=traced.bearer("alice") | key)
    await traced.http.post("/api/send", json=ENVELOPE | {"recipientId": "urn:MARKER"}, headers=traced.bearer("alice"))
    await traced.http.get("/api/messages?limit=5&access_token=MARKER-QUERY", headers=traced.bearer("bob"))
    await traced.http.get(f"/MARKER-PATH/{token}", headers={"user-agent": "MARKER-AGENT", "x-user": "alice"})
    await traced.http.get("/api/messages", headers={"authorization": "Bearer MARKER-TOKEN"})
    await (await traced.factory.migrator()).migrate("urn:sm:user:bob")
    said = recorder.said()
    assert {span.name for span in recorder.ended} >= {"POST /api/send", "ingress", "route", "fetch", "move", "GET"}
    for secret in ("MARKER", token, "alice", "bob", "AQID"):
        assert secret not in said


async def test_of_an_error_a_span_tells_only_the_class(
    traced: Web, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("MARKER-ERROR")

    store = await traced.factory.online_store()
    monkeypatch.setattr(store._component, "read", fail)  # type: ignore[attr-defined]  # it is wrapped
    answer = await traced.http.get("/api/messages", headers=traced.bearer("bob"))
    assert answer.status_code == 503
    fetch, request = recorder.one("fetch"), recorder.one("GET /api/messages")
    assert (fetch.status.status_code, request.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    assert fetch.attributes == {"error.type": "Unavailable"}
    assert request.attributes is not None
    assert request.attributes["error.type"] == "503"
    assert "MARKER" not in recorder.said()


async def test_a_refusal_is_no_error_of_the_router(traced: Web, recorder: Recorder) -> None:
    assert (await traced.http.get("/api/messages")).status_code == 401
    assert recorder.one("GET /api/messages").status.status_code is StatusCode.UNSET


async def test_of_several_traces_none_counts_and_states_are_joined(traced: Web, recorder: Recorder) -> None:
    twice = httpx.Headers([("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)])
    await traced.http.get("/healthz", headers=twice)
    await traced.http.get(
        "/healthz", headers=httpx.Headers([("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")])
    )
    first, second = recorder.named("GET /healthz")
    assert ids(first)[0] != TRACE
    assert ids(second)[0] == TRACE
    assert context_of(second).trace_state.to_header() == "a=1,b=2"


async def test_a_websocket_has_no_span(traced: Web, recorder: Recorder) -> None:
    async with traced.serve() as server, raw(server.port) as client:
        assert b" 101 " in await client.upgrade(traced.token("bob"))
    assert "GET /connect" not in {span.name for span in recorder.ended}


async def test_a_line_of_the_log_names_the_span_in_which_it_is_written(recorder: Recorder) -> None:
    assert log_fields() == {}
    with recorder.spans.around("fetch") as span:
        trace_id, span_id = f"{span.get_span_context().trace_id:032x}", f"{span.get_span_context().span_id:016x}"
        assert log_fields() == {"trace_id": trace_id, "span_id": span_id}


async def test_without_traces_nothing_is_wrapped(web: Web) -> None:
    for component in (
        await web.factory.ingress_producer(),
        await web.factory.cold_queue(),
        await web.factory.migrator(),
    ):
        assert not type(component).__module__.endswith("traced")
