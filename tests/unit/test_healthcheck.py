"""The health check of a container that holds no curl."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from starlette.routing import Router

from router import healthcheck
from router.core.readiness import Readiness
from router.metrics import Metrics
from router.web.health import Health
from tests.support.clock import ManualClock
from tests.support.edge import server as server_of
from tests.support.servers import free_port

pytestmark = pytest.mark.anyio


async def ask(*arguments: str) -> int:
    return await asyncio.to_thread(healthcheck.main, list(arguments))


async def test_alive_while_draining_and_dead_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = Readiness(ManualClock())
    health = Health(readiness, Metrics())
    async with server_of(Router(health.public_routes())) as server:
        assert await ask(str(server.port)) == 0
        monkeypatch.setenv("PORT", str(server.port))
        readiness.draining = True
        assert await ask() == 0, "what drains is not to be killed"
    async with server_of(Router([])) as server:
        assert await ask(str(server.port)) == 1
    assert await ask(str(free_port())) == 1
    assert await ask("http") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_it_is_asked_where_it_listens(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = server_of(Router(Health(Readiness(ManualClock()), Metrics()).public_routes()))
    server._host = host
    monkeypatch.setenv("ROUTER_SERVER__HOST", host)
    async with server:
        assert await ask(str(server.port)) == 0
        monkeypatch.delenv("ROUTER_SERVER__HOST")
        assert await ask(str(server.port)) == (host == "127.0.0.2"), "loopback is asked without being told"
    assert ("127.0.0.1: " in capsys.readouterr().err) == (host == "127.0.0.2")


def test_the_earlier_name_says_the_same() -> None:
    """Images of development versions call it; without a port it says what it wants."""
    ran = [
        subprocess.run([sys.executable, "-m", name], capture_output=True, env={"PATH": ""}, check=False)
        for name in ("router.healthcheck", "router.web.alive")
    ]
    assert [(one.returncode, one.stderr) for one in ran] == [(1, b"name the port, or set PORT\n")] * 2
