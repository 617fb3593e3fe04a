"""Requests and handshakes as picky clients make them, byte by byte, against the running server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.support.service import Router

KEY = "eHh4eHh4eHh4eHh4eHh4eA=="
SECONDS = 10.0


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    router = Router(tmp_path_factory.mktemp("handshakes") / "data")
    with router.running():
        yield router


def log(router: Router) -> list[dict[str, object]]:
    return [json.loads(line) for line in (router.data_dir.parent / "serve.log").read_text().splitlines()]


def exchange(router: Router, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and the beginning of the body of the answer to ``request``."""
    with socket.create_connection(("127.0.0.1", router.ws_port), SECONDS) as peer:
        peer.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = peer.recv(65536)
            assert received, "closed without an answer"
            answer += received
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += peer.recv(65536)
    return int(first.split()[1]), headers, body


def handshake(router: Router, *lines: str, path: str = "/connect") -> tuple[int, dict[str, str], bytes]:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
    head = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{router.ws_port}", *upgrade, *lines]
    return exchange(router, "\r\n".join([*head, "", ""]).encode())


def test_the_token_where_a_client_can_put_it(router: Router) -> None:
    token = router.token("bob")
    offers: list[tuple[list[str], str | None]] = [
        ([f"Authorization: Bearer {token}"], None),
        ([f"Authorization: Bearer {token}", f"Sec-WebSocket-Protocol: bearer, {token}"], "bearer"),
        ([f"Sec-WebSocket-Protocol: bearer, {token}"], "bearer"),
        ([f"Sec-WebSocket-Protocol: bearer,{token}"], "bearer"),
        (["Sec-WebSocket-Protocol: bearer", f"Sec-WebSocket-Protocol: {token}"], "bearer"),
        ([f"Sec-WebSocket-Protocol: {token}"], token),
    ]
    for lines, answered in offers:
        status, headers, _ = handshake(router, *lines)
        assert (status, headers.get("sec-websocket-protocol")) == (101, answered)


def test_a_refused_handshake_is_a_problem_document(router: Router) -> None:
    bearer = f"Authorization: Bearer {router.token('bob')}"
    refusals = [
        ((), "/connect", 401, "unauthorized"),
        (("Sec-WebSocket-Protocol: bearer",), "/connect", 401, "unauthorized"),
        ((bearer, bearer), "/connect", 401, "unauthorized"),
        ((bearer, "Origin: https://evil.example"), "/connect", 403, "origin-not-allowed"),
        ((bearer,), "/connect/", 404, "not-found"),
    ]
    for lines, path, expected, slug in refusals:
        status, headers, body = handshake(router, *lines, path=path)
        assert (status, headers["content-type"]) == (expected, "application/problem+json")
        assert json.loads(body)["type"].endswith(f":{slug}")
        assert headers["x-request-id"]
        assert ("www-authenticate" in headers) == (expected == 401)
    status, headers, _ = handshake(router, bearer, path="/api/messages")
    assert (status, headers["content-type"]) == (200, "application/json"), "elsewhere nobody is asked"
    assert [entry for entry in log(router) if entry["level"] == "error"] == []
    assert any(entry.get("reason") == "missing" and entry.get("request_id") for entry in log(router))


def test_an_upload_that_is_torn_off_is_no_fault_of_the_router(router: Router) -> None:
    """RACES 37."""
    head = f"POST /api/send HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {router.token('alice')}\r\n"
    with socket.create_connection(("127.0.0.1", router.api_port), SECONDS) as peer:
        peer.sendall(f"{head}Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".encode())
        assert peer.recv(100).startswith(b"HTTP/1.1 100")
        peer.sendall(b'{"recipientId": ')
    counted = 'router_http_requests_total{route="/api/send",status="499"} 1.0'
    for _ in range(1000):
        if counted in (metrics := router.admin("/metrics").text):
            break
    assert counted in metrics
    assert 'router_http_requests_total{route="/api/send",status="500"} 0.0' in metrics
    assert [entry for entry in log(router) if entry["level"] == "error"] == []
