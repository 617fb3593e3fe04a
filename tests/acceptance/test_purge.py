"""A user who is purged beside a running router, with a client that stays away and one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect

from router.client import RouterClient
from router.core.connections import DISCONNECTED
from tests.acceptance.test_serve import sealed
from tests.support.service import Router

pytestmark = pytest.mark.anyio


async def test_a_user_is_purged_beside_a_running_router(tmp_path: Path) -> None:
    router = Router(tmp_path / "data")
    with router.running():
        alice, bob, eve = (router.token(user) for user in ("alice", "bob", "eve"))
        async with (
            RouterClient(router.url, lambda: alice) as sender,
            RouterClient(router.url, lambda: bob) as reader,
            RouterClient(router.url, lambda: eve) as other,
            connect(router.ws_url, subprotocols=[Subprotocol("bearer"), Subprotocol(bob)]) as socket,
        ):
            kept = await sender.send(sealed("eve", 1))
            first, _ = await sender.send(sealed("bob", 1), "key"), await sender.send(sealed("bob", 2))
            await reader.acknowledge([first])
            done = json.loads(router.cli("purge", "bob", "--yes", "--json"))
            assert done["complete"]
            assert (done["hot"] + done["cold"], done["connections"]) == (1, 1)
            await socket.wait_closed()
            assert socket.close_code == DISCONNECTED
            assert await reader.fetch() == []
            assert [received.id for received in await other.fetch()] == [kept]
            # The router knows the id no more, so this is a new message.
            assert await sender.send(sealed("bob", 1), "key") == first
            assert [received.id for received in await reader.fetch()] == [first]
    assert "internal error" not in router.log()
