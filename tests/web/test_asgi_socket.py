"""The WebSocket over ASGI, without a server."""

from __future__ import annotations

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from router.web.poke_sockets import AsgiSocket

pytestmark = pytest.mark.anyio


class Peer:
    """The far end of an ASGI ``send``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.types: list[str] = []
        self.error = error

    async def send(self, message: Message) -> None:
        if self.error is not None and message["type"] != "websocket.accept":
            raise self.error
        self.types.append(message["type"])


async def test_a_poke_that_comes_first_follows_the_upgrade() -> None:
    """RACES 12."""
    peer = Peer()
    socket = AsgiSocket(peer.send)
    await socket.poke()
    await socket.poke()
    assert peer.types == []
    await socket.accept(None)
    assert peer.types == ["websocket.accept", "websocket.send"]


async def test_a_close_before_the_upgrade_is_the_handshakes() -> None:
    """RACES 35, 50: refused, it is answered 503, which a closed one could not be; else it is closed right after it."""
    peer = Peer()
    socket = AsgiSocket(peer.send)
    await socket.close(4401, "key withdrawn")
    await socket.poke()
    assert peer.types == []
    await socket.accept(None)
    assert peer.types == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize("error", [RuntimeError("after close"), ClientDisconnect()])
async def test_a_peer_that_is_gone_is_an_os_error(error: Exception) -> None:
    peer = Peer(error)
    socket = AsgiSocket(peer.send)
    await socket.poke()
    await socket.accept(None)
    for write in (socket.poke(), socket.close(1001, "")):
        with pytest.raises(OSError, match="closed"):
            await write
    assert peer.types == ["websocket.accept"]


async def test_a_server_that_does_not_ping_has_nobody_taken_for_silent() -> None:
    """RACES 51."""
    socket = AsgiSocket(Peer().send)
    socket.ping()
    assert socket.silent_seconds == 0
