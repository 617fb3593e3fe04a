"""Pokes over real sockets, one of whose clients does not read."""

from __future__ import annotations

import asyncio
import gc
import inspect
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from router.config import Auth
from router.core.connections import TOKEN_EXPIRED
from router.web.transport.websocket import WebSocketProtocol
from tests.contract.stage import BOB
from tests.support.clock import ended
from tests.support.edge import EVENT_SECONDS, HOST, Raw, eventually, handshake, narrow, raw
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio
EVE = "urn:sm:user:eve"
POKES = 100_000
"""More than the buffers of a narrow connection hold."""


async def stop_reading(web: Web, client: Raw) -> None:
    """Poke Bob, who has upgraded and does not read, until the server can send him no more."""
    assert b" 101 " in await client.upgrade(web.token("bob"))
    client.deafen()
    for _ in range(POKES):
        web.manager.poke([BOB])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if web.manager.statistics().poking:
            return
    raise AssertionError("his buffers never filled")


async def test_a_client_that_does_not_read_holds_up_nobody(web: Web) -> None:
    """RACES 19: at a real socket whose buffers are full; the other is another device, and another user."""
    async with web.serve() as server:
        narrow(server)
        url = f"ws://{HOST}:{server.port}/connect"
        async with (
            raw(server.port, deaf=True) as stuck,
            connect(url, additional_headers=web.bearer("eve")) as other,
        ):
            await stop_reading(web, stuck)
            async with connect(url, additional_headers=web.bearer("bob")) as device:
                for _ in range(3):
                    web.manager.poke([BOB, EVE])
                    async with asyncio.timeout(EVENT_SECONDS):
                        assert await device.recv() == await other.recv() == "{}"
        await eventually(lambda: web.manager.statistics().connections == 0)


async def offline(web: Web) -> None:
    """No connection of Bob's is held any more, and a moment later the store knows."""
    await eventually(lambda: web.manager.statistics().connections == 0)
    store = await web.factory.online_store()
    async with asyncio.timeout(EVENT_SECONDS):
        while await store.connections(BOB):  # noqa: ASYNC110 - a store sets no event
            await asyncio.sleep(0)


async def test_a_socket_knows_for_how_long_its_peer_has_owed_an_answer(web: Web) -> None:
    """RACES 51: whoever is pinged and answers owes nothing; a second ping does not begin anew with who is silent."""
    async with web.serve() as server:
        url = f"ws://{HOST}:{server.port}/connect"
        async with raw(server.port) as silent, connect(url, additional_headers=web.bearer("eve")) as living:
            assert b" 101 " in await silent.upgrade(web.token("bob"))
            await eventually(lambda: web.manager.statistics().connections == 2)
            sockets = {user: socket for user in (BOB, EVE) for socket in web.manager.sockets(user)}
            assert {socket.silent_seconds for socket in sockets.values()} == {0}
            for _ in range(2):
                for socket in sockets.values():
                    socket.ping()
                assert sockets[BOB].silent_seconds > 0
                await eventually(lambda: sockets[EVE].silent_seconds == 0)
            assert (await silent.read(2), sockets[BOB].silent_seconds > 0) == (b"\x89\x04", True)
            assert living.close_code is None


async def test_who_takes_no_poke_is_cut_off(web: Web) -> None:
    """RACES 16, 19: where even the ping could not be sent, closing politely would take for ever."""
    async with web.serve(client_seconds=0.2) as server:
        narrow(server)
        async with raw(server.port, deaf=True) as stuck:
            await stop_reading(web, stuck)
            await eventually(lambda: web.count("router_clients_cut_off_total", reason="slow-reader") == 1)
            await offline(web)


async def test_who_does_not_take_his_end_is_online_no_longer(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """His token has expired, and the close frame cannot be sent."""
    monkeypatch.setattr("router.core.connections.CLOSE_SECONDS", 0.1)
    async with web.serve() as server:
        narrow(server)
        async with raw(server.port, deaf=True) as stuck:
            await stop_reading(web, stuck)
            web.clock.advance(700)
            web.manager.close_expired()
            await offline(web)
            labels = {"code": str(TOKEN_EXPIRED), "clean": "false"}
            assert web.count("router_connections_closed_total", **labels) == 1


async def test_a_socket_lives_as_long_as_its_token_opens_another(web: Web) -> None:
    """Its client has no reason to come back before, with a token that is still taken."""
    bearer, leeway = web.bearer("bob", 600), Auth().leeway_seconds
    async with web.serve() as server, connect(f"ws://{HOST}:{server.port}/connect", additional_headers=bearer) as first:
        web.clock.advance(600 + leeway - 1)
        web.manager.close_expired()
        async with connect(f"ws://{HOST}:{server.port}/connect", additional_headers=bearer) as second:
            assert web.manager.statistics().connections == 2
            web.clock.advance(1)
            web.manager.close_expired()
            async with asyncio.timeout(EVENT_SECONDS):
                await asyncio.gather(first.wait_closed(), second.wait_closed())
        assert first.close_code == second.close_code == TOKEN_EXPIRED
        with pytest.raises(InvalidStatus, match="401"):
            async with connect(f"ws://{HOST}:{server.port}/connect", additional_headers=bearer):
                pass


async def test_a_drain_waits_for_no_poke(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 36: one client that does not read would use up the time of all the others."""
    monkeypatch.setattr("router.core.connections.CLOSE_SECONDS", 0.1)
    async with web.serve() as server:
        narrow(server)
        async with (
            raw(server.port, deaf=True) as stuck,
            connect(f"ws://{HOST}:{server.port}/connect", additional_headers=web.bearer("eve")) as other,
        ):
            await stop_reading(web, stuck)
            draining = asyncio.create_task(web.manager.drain())
            async with asyncio.timeout(EVENT_SECONDS):
                await other.wait_closed()
                await ended(web.clock, draining)
            assert other.close_code == 1001


@pytest.mark.parametrize(
    "way", [b"authorization: Bearer ", b"sec-websocket-protocol: bearer, ", b"sec-websocket-protocol: "]
)
async def test_a_socket_keeps_nothing_of_its_handshake(web: Web, way: bytes) -> None:
    """It may live for hours; its token does not stay in memory as long."""
    token = web.token("bob")
    async with web.serve() as server, raw(server.port) as client:
        await client.send(handshake(token).replace(b"authorization: Bearer ", way))
        assert b" 101 " in await client.line()
        await eventually(lambda: web.manager.statistics().connections == 1)
        (socket,) = server._uvicorn.server_state.connections
        assert isinstance(socket, WebSocketProtocol)
        await eventually(lambda: not socket.scope["headers"])
        kept = [socket, *gc.get_referents(socket), *gc.get_referents(socket.__dict__)]
        kept += [vars(one) for one in kept if hasattr(one, "__dict__")]
        (task,) = socket.tasks
        waiting: Any = task.get_coro()
        while inspect.iscoroutine(waiting):
            assert waiting.cr_frame is not None
            kept += waiting.cr_frame.f_locals.values()
            waiting = waiting.cr_await
        assert token not in repr(kept)
