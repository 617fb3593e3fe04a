"""The health check of a container that holds no curl."""

from __future__ import annotations

import asyncio

import pytest
from starlette.routing import Router

from router.metrics import Metrics
from router.web import alive
from router.web.health import Health
from tests.support.edge import server as server_of
from tests.support.servers import free_port

pytestmark = pytest.mark.anyio


async def ask(*arguments: str) -> int:
    return await asyncio.to_thread(alive.main, list(arguments))


async def test_alive_while_draining_and_dead_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(Metrics())
    async with server_of(Router(health.routes())) as server:
        assert await ask(str(server.port)) == 0
        monkeypatch.setenv("PORT", str(server.port))
        health.draining = True
        assert await ask() == 0, "what drains is not to be killed"
    async with server_of(Router([])) as server:
        assert await ask(str(server.port)) == 1
    assert await ask(str(free_port())) == 1
    assert await ask("http") == 1
