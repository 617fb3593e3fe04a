"""How much of a log strangers can write: a log on the disk of the mail must not fill it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx
import pytest
from structlog.testing import capture_logs

from router.errors import RateLimited, RouterError, TokenProblem, Unauthorized
from router.metrics import CUTS, Metrics
from router.sampling import LINES, SPAN_SECONDS
from router.web.context import EdgeContext
from router.web.problems import KINDS
from router.web.refusals import REFUSALS
from tests.support.edge import HOST, raw
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio
HOUR_SECONDS = 3600
TICK_SECONDS = 5
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
BESIDE = {
    "request_id": "x" * 64,
    "level": "warning",
    "logger": "router.web.refusals",
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "trace_id": "x" * 32,
    "service": "serve-api",
    "process": "worker-100",
    "node": "x" * 16,
}
"""What a line has beside what is said; the id is as long as a client may choose it."""


class Later:
    """``router.sampling.Later`` by a clock that a test holds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self._due.append((self.now + seconds, call))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        ready = [call for at, call in self._due if at <= self.now]
        self._due = [(at, call) for at, call in self._due if at > self.now]
        for call in ready:
            call()


def every_refusal() -> list[RouterError]:
    """One of each reason."""
    tokens = [Unauthorized("no", reason) for reason in get_args(TokenProblem)]
    others = [kind for kind in KINDS if kind not in (Unauthorized, RouterError)]
    return [*tokens, *(_made(kind) for kind in others)]


def _made(kind: type[RouterError]) -> RouterError:
    return kind("no", 1.0) if issubclass(kind, RateLimited) else kind("no")


async def test_refused_tokens_are_sampled_by_http_and_by_socket_together(web: Web) -> None:
    async with web.serve() as server:
        with capture_logs() as logged:
            async with httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}", trust_env=False) as http:
                for _ in range(LINES):
                    assert (await http.get("/api/messages", headers=_bad())).status_code == 401
            for _ in range(LINES):
                async with raw(server.port) as client:
                    assert b" 401 " in await client.upgrade("no-token")
            web.context.refusals.finish()
    *lines, last = [line for line in logged if line.get("reason") == "invalid_token"]
    assert [(line["event"], line["status"]) for line in lines] == [("refused", 401)] * LINES
    assert (last["event"], last["left_out"]) == ("more of the same", LINES)


def _bad() -> dict[str, str]:
    return {"authorization": "Bearer no-token"}


async def test_what_strangers_can_write_in_an_hour_is_what_the_docs_say() -> None:
    """Of each kind without a pause, by a clock in the hand."""
    later, refusals = Later(), every_refusal()
    context = EdgeContext([], Metrics(), later=later)
    with capture_logs() as logged:
        for _ in range(0, HOUR_SECONDS, TICK_SECONDS):
            for _ in range(LINES):
                for refusal in refusals:
                    context.refusals.refused(refusal)
                for cut in CUTS:
                    context.refusals.cut(cut)  # type: ignore[arg-type]  # they are the values of the literal
            later.advance(TICK_SECONDS)
    kinds = {line["reason"] for line in logged}
    assert kinds == REFUSALS | set(CUTS), "there is one of each"
    assert len(logged) == len(kinds) * (LINES + 1) * HOUR_SECONDS / SPAN_SECONDS
    written = sum(len(json.dumps({**BESIDE, **line})) + 1 for line in logged)
    ((lines, megabytes),) = re.findall(r"([\d,]+) lines an hour, (\d+) MB", OPERATIONS.read_text())
    assert 0.7 < len(logged) / int(lines.replace(",", "")) <= 1
    assert 0.7 < written / 1e6 / int(megabytes) <= 1, written
