"""The access log: one line a request, which says nothing of who asks and what for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from router.web.access_log import AccessLog
from tests.support.edge import eventually, raw
from tests.web.conftest import Web
from tests.web.test_api import ENVELOPE

pytestmark = pytest.mark.anyio
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
NAMES = {"request_id", "method", "route", "status", "seconds", "bytes", "event", "log_level"}


@pytest.fixture(autouse=True)
def on(web: Web) -> None:
    web.context.access_log = AccessLog()


def requests(logged: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(line) for line in logged if line["event"] == "request"]


async def test_a_request_has_one_line_with_the_ids_of_its_answer(web: Web) -> None:
    with capture_logs(processors=[merge_contextvars]) as logged:
        sent = await web.http.post(
            "/api/send", json=ENVELOPE, headers=web.bearer("alice") | {"traceparent": TRACEPARENT}
        )
        fetched = await web.http.get("/api/messages?limit=1", headers=web.bearer("bob") | {"x-request-id": "r-1"})
    first, second = requests(logged)
    assert first.keys() == NAMES | {"trace_id"}
    assert (first["method"], first["route"], first["status"]) == ("POST", "/api/send", sent.status_code)
    assert (first["request_id"], first["trace_id"]) == (sent.headers["x-request-id"], TRACE)
    assert first["bytes"] == len(sent.content)
    assert first["seconds"] >= 0
    assert second.keys() == NAMES
    assert (second["method"], second["route"], second["request_id"]) == ("GET", "/api/messages", "r-1")
    assert second["bytes"] == len(fetched.content)


async def test_a_refusal_has_its_line_too_and_the_trace_is_on_both(web: Web) -> None:
    with capture_logs(processors=[merge_contextvars]) as logged:
        await web.http.get("/api/messages", headers={"authorization": "Bearer no", "traceparent": TRACEPARENT})
    refused, ended = [line for line in logged if line.get("status") == 401]
    assert (refused["event"], ended["event"]) == ("refused", "request")
    assert refused["trace_id"] == ended["trace_id"] == TRACE


async def test_no_line_says_who_asks_or_what_for(web: Web) -> None:
    """A token may be in the query, and anything may be in a path that is not served."""
    token = web.token("alice")
    with capture_logs(processors=[merge_contextvars]) as logged:
        await web.http.get(f"/api/messages?access_token={token}", headers=web.bearer("alice"))
        await web.http.get(f"/{token}")
        await web.http.post("/api/send", json=ENVELOPE, headers=web.bearer("alice"))
    lines = requests(logged)
    assert [line["route"] for line in lines] == ["/api/messages", "other", "/api/send"]
    for secret in (token, "alice", "bob"):
        assert secret not in json.dumps(lines)


async def test_a_trace_that_is_named_twice_does_not_count(web: Web) -> None:
    twice = httpx.Headers([("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)])
    with capture_logs(processors=[merge_contextvars]) as logged:
        await web.http.get("/healthz", headers=twice)
    (line,) = requests(logged)
    assert "trace_id" not in line


async def test_what_is_no_request_has_a_line_as_well(web: Web) -> None:
    """The answer is the transport's, and never reaches the application."""
    async with web.serve() as server:
        with capture_logs(processors=[merge_contextvars]) as logged:
            async with raw(server.port) as client:
                await client.send(b"NONSENSE\r\n\r\n")
                head, _, body = (await client.answer()).partition(b"\r\n\r\n")
    (line,) = requests(logged)
    assert (line["method"], line["route"], line["status"], line["bytes"]) == ("-", "other", 400, len(body))
    assert line["request_id"].encode() in head


async def test_a_websocket_has_its_line_when_it_ends(web: Web) -> None:
    async with web.serve() as server:
        with capture_logs(processors=[merge_contextvars]) as logged:
            async with raw(server.port) as client:
                assert b" 101 " in await client.upgrade(web.token("alice"))
                assert requests(logged) == []
            await eventually(lambda: bool(requests(logged)))
    (line,) = requests(logged)
    assert (line["method"], line["route"], line["status"]) == ("GET", "/connect", 101)


async def test_a_client_that_has_gone_before_its_answer_has_status_499(web: Web) -> None:
    async def gone() -> dict[str, str]:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def answer(message: Any) -> None:
        raise AssertionError(message)

    headers = [(name.encode(), value.encode()) for name, value in web.bearer("alice").items()]
    scope = {"type": "http", "method": "POST", "path": "/api/send", "headers": headers, "query_string": b""}
    with capture_logs() as logged:
        await web.app(scope, gone, answer)
    (line,) = requests(logged)
    assert (line["status"], line["bytes"]) == (499, 0)


async def test_it_is_off_unless_asked(web: Web) -> None:
    web.context.access_log = None
    with capture_logs() as logged:
        await web.http.get("/healthz")
    assert requests(logged) == []
