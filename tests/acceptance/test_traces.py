"""Traces of the real command reach a collector by OTLP over HTTP, and its log names them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.support.recorded_spans import TRACE, TRACEPARENT
from tests.support.service import Router, stop

ENVELOPE = {"recipientId": "bob", "encryptedData": "TUFSS0VS"}


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OTLP receiver: its URL, and path and body of each request."""
    received = list[tuple[str, bytes]]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def settings(url: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "ROUTER_SERVER__LOG_FORMAT": "json",
        "ROUTER_SERVER__ACCESS_LOG": "on",
    }


def test_spans_reach_the_collector_and_the_log_names_their_trace(tmp_path: Path) -> None:
    with collector() as (url, received):
        router = Router(tmp_path / "data", settings(url))
        with router.running() as process:
            alice, bob = router.token("alice"), router.token("bob")
            headers = {"authorization": f"Bearer {alice}", "traceparent": TRACEPARENT, "x-request-id": "send"}
            assert httpx.post(f"{router.url}/api/send", json=ENVELOPE, headers=headers).status_code == 202
            fetch = {"authorization": f"Bearer {bob}", "x-request-id": "fetch"}
            assert httpx.get(f"{router.url}/api/messages", headers=fetch).json()["messages"]
            assert stop(process) == 0
    assert {path for path, _ in received} == {"/v1/traces"}
    spans = b"".join(body for _, body in received)
    for known in ("POST /api/send", "ingress", "route", "GET /api/messages", "fetch", "sealed-router-serve", "test"):
        assert known.encode() in spans
    assert bytes.fromhex(TRACE) in spans
    for secret in ("alice", "bob", alice, bob, "TUFSS0VS"):
        assert secret.encode() not in spans
    lines = {line["request_id"]: line for line in map(json.loads, router.log().splitlines()) if "method" in line}
    assert lines["send"]["trace_id"] == TRACE
    assert bytes.fromhex(lines["fetch"]["trace_id"]) in spans, "the router began this one"
    assert lines["fetch"]["node"].encode() in spans


def test_while_the_collector_is_down_the_router_works_and_ends(tmp_path: Path) -> None:
    router = Router(tmp_path / "data", settings("http://127.0.0.1:9"))
    with router.running() as process:
        headers = {"authorization": f"Bearer {router.token('alice')}"}
        assert httpx.post(f"{router.url}/api/send", json=ENVELOPE, headers=headers).status_code == 202
        assert stop(process) == 0
    assert "Traceback" not in router.log()
