"""A running router whose machine's clock is set while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from tests.support.service import Router, stop
from tests.support.tracebacks import traceback_in

MONTH_SECONDS = 31 * 86_400
LINE_SECONDS = 60.0
WRONG_CLOCK = """
import os, pathlib, time

real, ahead = time.time_ns, pathlib.Path(os.environ["SECONDS_AHEAD"])
time.time_ns = lambda: real() + int(ahead.read_text()) * 10**9
"""
"""For ``sitecustomize``: the wall clock of a process, without the monotonic one, as a step of the machine's is."""


def test_a_month_ahead_for_a_few_seconds_deletes_nothing(tmp_path: Path) -> None:
    """RACES 45: the sweeper has looked at it in both directions."""
    ahead = tmp_path / "ahead"
    set_ahead(ahead, 0)
    (tmp_path / "sitecustomize.py").write_text(WRONG_CLOCK)
    router = Router(tmp_path / "data", {"PYTHONPATH": str(tmp_path), "SECONDS_AHEAD": str(ahead)})
    with router.running() as process:
        token = EmbeddedKey.open(router.data_dir).sign("bob", SystemClock().now(), 600)
        bearer = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=router.url, headers=bearer, timeout=LINE_SECONDS) as http:
            ids = [http.post("/api/send", json={"recipientId": "bob"}).json()["id"] for _ in range(5)]
            waiting_for(lambda: len(fetched(http)) == len(ids))
            for seconds in (MONTH_SECONDS, 0, -40 * 86_400, 0):
                before = router.log().count("clock was set")
                set_ahead(ahead, seconds)
                waiting_for(lambda before=before: router.log().count("clock was set") > before)  # type: ignore[misc]  # a loop's value
            assert fetched(http) == ids
            assert "retention waits" not in router.log()
        assert stop(process) == 0
    assert not traceback_in(router.log())


def set_ahead(file: Path, seconds: int) -> None:
    """In one step: the router reads it all the while."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(file)


def fetched(http: httpx.Client) -> list[str]:
    return [message["id"] for message in http.get("/api/messages").json()["messages"]]


def waiting_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
