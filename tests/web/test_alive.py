"""The health check of a container that holds no curl."""

from __future__ import annotations

import asyncio

import pytest
from starlette.routing import Router

from router.metrics import Metrics
from router.web import alive
from router.web.health import Health
from tests.support import edge
from tests.support.servers import free_port

pytestmark = pytest.mark.anyio


async def ask(*arguments: str) -> int:
    return await asyncio.to_thread(alive.main, list(arguments))


async def test_alive_while_draining_and_dead_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(Metrics())
    async with edge.server(Router(health.routes())) as serving:
        assert await ask(str(serving.port)) == 0
        monkeypatch.setenv("PORT", str(serving.port))
        health.draining = True
        assert await ask() == 0, "what drains is not to be killed"
    async with edge.server(Router([])) as serving:
        assert await ask(str(serving.port)) == 1
    assert await ask(str(free_port())) == 1
    assert await ask("http") == 1
