"""``router top``: what it finds out of real services, and what fits on a screen."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from router.cli.exits import Code
from router.cli.inspection import OldQueue, Overview, Share
from router.cli.top_view import KEYS, Order, Top, screen
from router.core.readiness import State
from router.core.status import Counts, Status, rates, status
from router.dead_reasons import DeadReason
from router.messages import Census, QueueTotals
from router.metrics import Metrics
from tests.support.servers import free_port
from tests.support.service import Router

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def queue(number: int, messages: int = 1) -> OldQueue:
    return OldQueue(f"urn:sm:user:{number}-{'x' * 100}", "cold", messages, 10**9, "2026-12-01T00:00:00Z", 10.0**7)


def found(queues: int, outages: int = 0, service: bool = True) -> Top:
    share = Share(queues, 1 << 40, None, 0)
    oldest = [queue(number) for number in range(min(queues, 100))]
    overview = Overview("", share, share, Share(queues, 1 << 40, None, queues), 10**6, 10**7, 10**5, oldest)
    failed = [{"dependency": f"dependency-{number}", "kind": "redis"} for number in range(outages)]
    told = Status(
        services=["serve-api 0.1.0", "serve-ws 0.1.0", "process 0.1.0"],
        started_at=0,
        ready=not outages,
        draining=False,
        failed=failed,
        limited=["sends: the volume of the data directory is nearly full"],
        counts=Counts(),
        connections=0,
        online_users=0,
        online_connections=0,
        queues={},
        dead_letters=0,
    )
    urls = [f"http://192.168.100.{number}:8084" for number in range(3)]
    return Top(
        at="2026-12-01T18:30:00.000000Z",
        asked=urls,
        answered=urls if service else [],
        problems={} if service else dict.fromkeys(urls, "nothing listens there"),
        service=told if service else None,
        rates=Counts(*(12345.6,) * 7) if service else None,
        stores_problem=None,
        queues=overview,
        longest=oldest[::-1],
    )


def drawn(top: Top, width: int, height: int, order: Order = Order.OLDEST, *, paused: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system="truecolor")
    console.print(screen(top, order, paused=paused, width=width, height=height), end="")
    return ESCAPES.sub("", out.getvalue()).rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 10), (40, 24), (200, 60)])
@pytest.mark.parametrize("outages", [0, 2, 9])
@pytest.mark.parametrize("service", [True, False])
def test_all_fits_whatever_there_is(width: int, height: int, outages: int, service: bool) -> None:
    for order in Order:
        lines = drawn(found(1000, outages, service), width, height, order, paused=True)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width
        shown = [line for line in lines if line.startswith("urn:")]
        assert len(shown) >= 3
        assert lines[-1].strip().startswith(f"{1000 - len(shown):,} more   [o]ldest"[:width])
        assert "PAUSED" in lines[0]


def test_80_by_24() -> None:
    lines = drawn(found(51), 80, 24)
    assert lines[1] == "ready: serve-api 0.1.0, serve-ws 0.1.0, process 0.1.0 at http://192.168.100.0:8…"
    assert "accepted 12,346" in lines[3]
    assert len([line for line in lines if line.startswith("urn:") and "… cold " in line]) == 15
    assert lines[-1].strip() == f"36 more   {KEYS}"
    few = drawn(found(2), 80, 24)
    assert few[-1].strip() == KEYS
    assert "nothing is queued" in "\n".join(drawn(found(0), 80, 24))
    longest = [line.split("-")[0] for line in drawn(found(50), 80, 24, Order.LONGEST) if line.startswith("urn:")]
    assert longest[:2] == ["urn:sm:user:49", "urn:sm:user:48"]


def test_outages_and_silence_are_said() -> None:
    text = "\n".join(drawn(found(50, outages=1), 80, 24))
    assert "NOT READY: serve-api 0.1.0" in text
    assert "outage: dependency-0 (redis) does not work" in text
    silent = "\n".join(drawn(found(50, service=False), 80, 24))
    assert "no service answers on server.admin_port, so there are no rates; asked:" in silent
    assert "http://192.168.100.1:8084: nothing listens there" in silent


def test_rates_are_of_what_came_between_two_looks() -> None:
    before, after = Counts(accepted=100, fetched=7), Counts(accepted=130, fetched=7, errors=3)
    assert rates(before, after, 2.0) == Counts(accepted=15, errors=1.5)
    assert rates(before, Counts(accepted=40), 2.0).accepted == 20, "a service that was started again counts from 0"


def test_what_metrics_say_of_a_service() -> None:
    metrics, works = Metrics(), True
    metrics.process("serve", "0.1.0")
    metrics.depends("online", "redis", lambda: works)
    metrics.refusals(["expired", "rate-limited"])
    for _ in range(3):
        metrics.accepted()
    metrics.refused("expired")
    metrics.refused("rate-limited")
    metrics.answered("/api/send", 503, 0.1)
    metrics.answered("/api/send", 202, 0.1)
    metrics.dead_letter(DeadReason.DAMAGED)
    metrics.connections(4)
    told = status(metrics.render().decode(), State())
    assert (told.services, told.ready, told.failed, told.connections) == (["serve 0.1.0"], True, [], 4)
    assert (told.counts.accepted, told.counts.refused, told.counts.errors) == (3, 2, 1)
    assert (told.queues, told.online_users, told.dead_letters) == ({}, None, None)
    works = False
    now = 1_800_000_000_000_000
    cold = QueueTotals(5, 500, 2, now - 7_000_000)
    metrics.census(Census(now, None, QueueTotals(), cold, QueueTotals(messages=4, users=3), 1))
    told = status(metrics.render().decode(), State(failed=[{"dependency": "auth", "kind": "jwks"}]))
    assert told.failed == [{"dependency": "auth", "kind": "jwks"}, {"dependency": "online", "kind": "redis"}]
    assert not told.ready
    assert set(told.queues) == {"hot", "cold"}
    assert (told.queues["cold"].messages, told.queues["cold"].oldest_seconds) == (5, 7.0)
    assert (told.online_users, told.online_connections, told.dead_letters) == (3, 4, 1)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    started = Router(tmp_path_factory.mktemp("top") / "data")
    with started.running():
        for number in range(3):
            for _ in range(number + 1):
                started.cli("send", "--as", "alice", "--to", f"user-{number}", "--data", "hello")
        yield started


def snapshot(router: Router, *options: str) -> Any:
    ended = router.command("top", "--json", *options)
    return ended.returncode, json.loads(ended.stdout)


def test_a_snapshot_of_a_real_service(router: Router) -> None:
    code, top = snapshot(router, "--limit", "2")
    url = f"http://127.0.0.1:{router.admin_ports['serve']}"
    assert (code, top["answered"], top["problems"]) == (Code.OK, [url], {})
    assert top["service"]["services"][0].startswith("serve ")
    assert (top["service"]["ready"], top["service"]["counts"]["accepted"]) == (True, 6)
    assert set(top["rates"]) == set(Counts.__struct_fields__)
    assert top["queues"]["cold"] | {"bytes": 0, "oldest_at": ""} == {
        "messages": 6,
        "users": 3,
        "bytes": 0,
        "oldest_at": "",
    }
    assert [each["user"] for each in top["queues"]["oldest"]] == ["urn:sm:user:user-0", "urn:sm:user:user-1"]
    assert [each["user"] for each in top["longest"]] == ["urn:sm:user:user-2", "urn:sm:user:user-1"]
    assert [each["messages"] for each in top["longest"]] == [3, 2]
    printed = router.cli("top", "--once", "--limit", "1")
    assert f"ready: {top['service']['services'][0]} at {url}\nper second: accepted " in printed
    assert "\n2 more; see --limit\n" in printed


def test_services_that_run_apart_are_added_up(router: Router, tmp_path: Path) -> None:
    apart = Router(tmp_path / "data")
    with apart.running("serve-api"), apart.running("serve-ws"):
        apart.cli("send", "--as", "alice", "--to", "bob", "--data", "hello")
        urls = [f"http://127.0.0.1:{apart.admin_ports[service]}" for service in ("serve-api", "serve-ws")]
        gone = f"http://127.0.0.1:{free_port()}"
        code, top = snapshot(apart, *(option for url in [*urls, f"{gone}/"] for option in ("--url", url)))
    assert (code, top["answered"], top["problems"]) == (Code.OK, urls, {gone: "nothing listens there"})
    assert [each.split()[0] for each in top["service"]["services"]] == ["serve-api", "serve-ws"]
    assert top["service"]["counts"]["accepted"] == 1
    api = f"http://127.0.0.1:{router.api_port}"
    code, top = snapshot(router, "--url", api)
    assert (code, top["service"]) == (Code.UNAVAILABLE, None)
    assert top["problems"] == {api: "what answers there (status 404) is not the admin port of a router"}


def test_no_service_and_no_store(router: Router) -> None:
    """It names the port, and shows what the stores hold."""
    other = Router(router.data_dir)
    ended = other.command("top", "--once")
    assert ended.returncode == Code.UNAVAILABLE
    assert b"no service answers on server.admin_port, so there are no rates; asked:\n" in ended.stdout
    assert f"http://127.0.0.1:{other.admin_ports['serve']}: nothing listens there\n".encode() in ended.stdout
    assert b"cold 6 (" in ended.stdout
    router_without = Router(router.data_dir)
    router_without.environment |= {
        "ROUTER_ONLINE__KIND": "redis",
        "ROUTER_ONLINE__URL": f"redis://127.0.0.1:{free_port()}",
        "ROUTER_SERVER__ADMIN_PORT": str(router.admin_ports["serve"]),
    }
    ended = router_without.command("top", "--once")
    assert ended.returncode == Code.UNAVAILABLE
    assert b"the stores cannot be read: " in ended.stdout
    assert b"ready: serve " in ended.stdout


def test_keys_on_a_terminal(router: Router) -> None:
    """80 by 24: each key is pressed once what it is to change has been seen. The terminal is left as it was."""
    terminal, inner = pty.openpty()
    ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(inner)
    process = subprocess.Popen(
        [sys.executable, "-m", "router", "top", "--interval", "0.5"],
        env={**router.environment, "TERM": "xterm"},
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    try:
        for awaited, key in (("Oldest queues", "l"), ("Longest queues", "p"), ("PAUSED", "o"), ("Oldest queues", "q")):
            seen = ""
            while awaited not in seen:
                seen += ESCAPES.sub("", os.read(terminal, 65536).decode("utf-8", "replace"))
            os.write(terminal, key.encode())
        assert process.wait(60) == Code.OK
        assert termios.tcgetattr(inner) == before
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(inner)
