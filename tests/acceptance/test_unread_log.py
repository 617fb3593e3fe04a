"""RACES 46: whoever reads the log stops reading: a terminal with Ctrl-S, ``| less``, a log driver that hangs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.cli.exits import Code
from router.sampling import LINES
from tests.support.service import Router, stop

REFUSED = 30


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


def refusals(router: Router) -> list[int]:
    with httpx.Client() as client:
        return [client.get(f"{router.url}/api/messages").status_code for _ in range(REFUSED)]


@contextlib.contextmanager
def unread(router: Router, *, full: bool) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service whose log nobody reads; the pipe is ``full`` before the first line. Yields the read end too."""
    read, write = os.pipe()
    if full:
        os.set_blocking(write, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4096))
        os.set_blocking(write, True)
    process = subprocess.Popen([sys.executable, "-m", "router", "serve"], env=router.environment, stderr=write)
    os.close(write)
    try:
        router.wait_until_ready(process, router.api_port)
        yield process, read
    finally:
        process.kill()
        process.wait()
        os.close(read)


def test_a_service_goes_on_and_stops_though_nobody_reads_its_log(router: Router) -> None:
    """RACES 46: not one line of it has been taken."""
    with unread(router, full=True) as (process, _):
        assert refusals(router) == [401] * REFUSED
        assert router.metric("router_log_lines_dropped_total") == 0, "they wait"
        assert stop(process) == Code.OK


def test_whoever_reads_again_gets_the_last_lines_too(router: Router) -> None:
    """RACES 46: what a flood left out is told before the end, behind what was said before it."""
    with unread(router, full=False) as (process, read):
        refusals(router)
        taken: list[bytes] = []
        reading = threading.Thread(target=lambda: taken.extend(iter(lambda: os.read(read, 65536), b"")))
        reading.start()
        assert stop(process) == Code.OK
        reading.join()
    lines = b"".join(taken).splitlines()
    assert sum(b'"refused"' in line for line in lines) == LINES
    assert [line for line in lines if b'"more of the same"' in line and b'"left_out": %d' % (REFUSED - LINES) in line]
    assert b'"stopped"' in lines[-2] + lines[-1]


def test_a_log_whose_reader_has_gone_ends_nothing(router: Router) -> None:
    """RACES 46: as where ``| head`` has read enough."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, "-m", "router", "serve"], env=router.environment, stderr=write)
    os.close(write)
    try:
        router.wait_until_ready(process, router.api_port)
        assert httpx.get(f"{router.url}/api/messages").status_code == 401
        assert stop(process) == Code.OK
    finally:
        process.kill()
        process.wait()


def test_why_a_service_did_not_start_is_read(router: Router) -> None:
    """RACES 46: the last words of a process that ends at once are written before it does."""
    with router.running():
        second = router.command("serve")
    assert second.returncode == Code.CONFIG
    assert second.stderr.decode().splitlines()[-1].startswith("error: another `router serve`")
