"""``GET /connect``: a WebSocket that carries nothing but pokes.

A raw ASGI application: thousands of idle sockets should cost little more than their buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from router.auth.verifier import Authenticator
from router.core.connections import ConnectionManager
from router.errors import RouterError
from router.messages import Connection
from router.web import problems
from router.web.edge import Border
from router.web.problems import Forbidden, UpgradeRequired
from router.web.tokens import from_handshake

MAX_FRAMES = 100
FRAME_SECONDS = 10.0
"""A client may send this many frames in this time; they are ignored, but not without a bound."""
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class Sockets:
    """The handler of ``/connect``."""

    def __init__(self, authenticator: Authenticator, manager: ConnectionManager, border: Border) -> None:
        self._authenticator = authenticator
        self._manager = manager
        self._border = border

    def routes(self) -> list[BaseRoute]:
        return [WebSocketRoute("/connect", self), Route("/connect", self.plain, methods=["GET"])]

    async def plain(self, request: Request) -> Response:
        """A GET without an upgrade."""
        raise UpgradeRequired(f"{request.url.path} speaks WebSocket: connect with ws:// or wss://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        socket = AsgiSocket(send)
        try:
            connection, subprotocol = await self._connect(Headers(scope=scope), socket)
        except RouterError as error:
            self._border.refuse(error)
            await _deny(scope, receive, send, error)
            return
        try:
            await socket.accept(subprotocol)
            await _ignore_frames(receive, socket)
        finally:
            # Also when this task is cancelled: presence must not outlive the socket.
            await asyncio.shield(self._manager.disconnect(connection))

    async def _connect(self, headers: Headers, socket: AsgiSocket) -> tuple[Connection, str | None]:
        origin = headers.get("origin")
        if origin is not None and not self._border.allows(origin) and not _same_host(origin, headers.get("host")):
            raise Forbidden("this origin is not in server.allowed_origins")
        token, subprotocol = from_handshake(headers)
        principal = await self._authenticator.authenticate(token)
        return await self._manager.connect(principal.user, socket, principal.expires_at), subprotocol


def _same_host(origin: str, host: str | None) -> bool:
    return host is not None and origin.partition("://")[2] == host


class AsgiSocket:
    """``Socket`` over ASGI; a poke that comes before the upgrade is sent after it.

    A close before the upgrade is left to the handshake, which is then refused.
    """

    __slots__ = ("_accepted", "_early", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._accepted = False
        self._early = False

    async def accept(self, subprotocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self._accepted = True
        if self._early:
            # Gone already? Then the next receive says so.
            with contextlib.suppress(ConnectionError):
                await self.poke()

    async def poke(self) -> None:
        if self._accepted:
            await self._emit({"type": "websocket.send", "text": "{}"})
        else:
            self._early = True

    async def close(self, code: int, reason: str) -> None:
        if self._accepted:
            await self._emit({"type": "websocket.close", "code": code, "reason": reason})

    async def _emit(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except (ClientDisconnect, RuntimeError) as error:
            # The latter is uvicorn's word for a socket that is closed already.
            raise ConnectionError("the socket is closed") from error


async def _ignore_frames(receive: Receive, socket: AsgiSocket) -> None:
    """Return when the client is gone or has talked too much."""
    loop = asyncio.get_running_loop()
    since, frames = loop.time(), 0
    while (await receive())["type"] != "websocket.disconnect":
        now = loop.time()
        if now - since > FRAME_SECONDS:
            since, frames = now, 0
        frames += 1
        if frames > MAX_FRAMES:
            await socket.close(POLICY_VIOLATION, "too many frames")
            return


async def _deny(scope: Scope, receive: Receive, send: Send, error: RouterError) -> None:
    """Refuse before the upgrade, by an HTTP answer."""
    response = problems.response(error)
    await response({**scope, "type": "websocket"}, receive, send)
