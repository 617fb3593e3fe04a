"""``router connections`` and ``router disconnect`` against real nodes: two that share a store, and their sockets."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from router.cli.exits import Code
from router.core.connections import DISCONNECTED
from tests.support.servers import Server
from tests.support.service import Router

pytestmark = pytest.mark.anyio
BOB, ALICE = "urn:sm:user:bob", "urn:sm:user:alice"
TURN_SECONDS = 60.0


@pytest.fixture(params=["embedded", "redis"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Router, Router]]:
    """``serve``, and ``serve-ws`` beside it."""
    settings = {"ROUTER_COLD__KIND": "embedded"}
    if request.param == "redis":
        redis: Server = request.getfixturevalue("redis")
        settings |= {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__URL": f"redis://{redis.address}"}
        settings |= {"ROUTER_ONLINE__KEY_PREFIX": secrets.token_hex(8)}
    one, other = Router(tmp_path / "data", settings), Router(tmp_path / "data", settings)
    with ExitStack() as stack:
        stack.enter_context(one.running())
        stack.enter_context(other.running("serve-ws"))
        yield one, other


@asynccontextmanager
async def opened(router: Router, *users: str) -> AsyncIterator[list[ClientConnection]]:
    async with AsyncExitStack() as stack:
        sockets = []
        for user in users:
            headers = {"Authorization": f"Bearer {router.token(user)}"}
            sockets.append(await stack.enter_async_context(connect(router.ws_url, additional_headers=headers)))
        yield sockets


async def asked(router: Router, *command: str) -> Any:
    return json.loads(await asyncio.to_thread(router.cli, *command, "--json"))


async def test_a_user_is_disconnected_on_every_node(nodes: tuple[Router, Router]) -> None:
    one, other = nodes
    async with opened(one, "bob", "alice") as (phone, hers), opened(other, "bob") as (laptop,):
        found = await asked(one, "connections")
        assert (found["users"], found["connections"], found["more_users"]) == (2, 3, 0)
        assert sorted(held["user"] for held in found["shown"]) == [ALICE, BOB, BOB]
        assert len({held["node"] for held in found["shown"] if held["user"] == BOB}) == 2
        for held in found["shown"]:
            assert held["since"] < found["at"] < held["lease_until"]
        few = await asked(one, "connections", "--limit", "1")
        assert (few["users"], few["connections"], few["more_users"]) == (2, 3, 1)
        assert len({held["user"] for held in few["shown"]}) == 1
        his = await asked(one, "connections", "bob")
        assert (his["users"], his["connections"]) == (1, 2)
        await asyncio.to_thread(one.cli, "send", "--as", "alice", "--to", "bob", "--data", "hello")
        assert (await asked(one, "inspect-queue", "bob"))["hot"]["messages"] == 1

        done = await asked(one, "disconnect", "bob")
        assert (done["user"], len(done["closed"]), done["left"]) == (BOB, 2, [])
        assert {held["node"] for held in done["closed"]} == {held["node"] for held in his["shown"]}
        for socket in (phone, laptop):
            await asyncio.wait_for(socket.wait_closed(), TURN_SECONDS)
            assert (socket.close_code, socket.close_reason) == (DISCONNECTED, "disconnected by an operator")
        assert await asyncio.to_thread(one.cli, "connections", "bob") == f"Connections of {BOB}: nobody is connected\n"
        assert [held["user"] for held in (await asked(one, "connections"))["shown"]] == [ALICE]
        await hers.ping()
        async with asyncio.timeout(TURN_SECONDS):
            while (await asked(one, "inspect-queue", "bob"))["cold"]["messages"] != 1:
                pass
        async with opened(one, "bob") as (again,):
            assert await asyncio.wait_for(again.recv(), TURN_SECONDS) == "{}"


async def test_who_is_not_connected(nodes: tuple[Router, Router]) -> None:
    assert await asyncio.to_thread(nodes[0].cli, "disconnect", "bob") == f"{BOB} is not connected\n"


async def test_a_node_that_was_killed_is_named(tmp_path: Path) -> None:
    """Nobody ends its lease before its time, as the services are stopped."""
    router = Router(tmp_path / "data")
    with router.running() as service:
        async with opened(router, "bob"):
            service.kill()
            service.wait()
            done = await asyncio.to_thread(router.command, "disconnect", "bob")
    assert done.returncode == Code.TEMPORARY
    assert b" does not answer; its connection " in done.stderr
    assert done.stdout == b""
