"""Strangers who take all connections that they can get, at the installed router."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from tests.support.edge import raw
from tests.support.redis_servers import client
from tests.support.servers import redis_server, running
from tests.support.service import Router, stop
from tests.support.tracebacks import traceback_in

pytestmark = pytest.mark.anyio
CUT = "router_clients_cut_off_total"
FILES = 128
"""That a process may have open."""


async def test_strangers_leave_a_process_its_own_files(tmp_path: Path) -> None:
    """Who has a connection goes on, also where the process loses those to its store and needs new ones."""
    with running(redis_server(tmp_path / "redis", "--maxmemory-policy", "noeviction")) as redis:
        settings = {
            "ROUTER_ONLINE__KIND": "redis",
            "ROUTER_ONLINE__URL": f"redis://{redis.address}",
            "ROUTER_SERVER__CLIENT_SECONDS": "600",
        }
        router = Router(tmp_path / "data", settings)
        with router.running(first=f"ulimit -n {FILES}") as process:
            token = EmbeddedKey.open(router.data_dir).sign("bob", SystemClock().now(), 600)
            headers = {"authorization": f"Bearer {token}"}
            async with (
                httpx.AsyncClient(base_url=router.url, headers=headers, timeout=30) as honest,
                AsyncExitStack() as stack,
            ):
                assert (await honest.get("/api/messages")).status_code == 200
                strangers = [await stack.enter_async_context(raw(router.api_port)) for _ in range(FILES)]
                await strangers[-1].closed()
                client(redis).client_kill_filter(_type="normal")
                assert (await honest.post("/api/send", json={"recipientId": "bob"})).status_code == 202
                assert (await honest.get("/api/messages")).status_code == 200
                assert (await honest.get("/readyz")).status_code == 200
                turned_away = re.search(rf'{CUT}{{reason="no-room"}} (\S+)', router.admin("/metrics").text)
                assert turned_away
                assert 0 < float(turned_away[1]) < FILES
            assert stop(process) == 0
    assert not traceback_in(router.log())
