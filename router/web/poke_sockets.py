"""``GET /connect``: a WebSocket that carries nothing but pokes.

A raw ASGI application: thousands of idle sockets should cost little more than their buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import MutableMapping
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from router.auth.verifier import Authenticator
from router.config.origins import same_host
from router.core.connections import ConnectionManager
from router.core.work_budget import WorkBudget
from router.messages import Connection
from router.web.bearer_tokens import from_handshake
from router.web.cors import Cors
from router.web.headers import Headers, forget_headers, headers_of
from router.web.problems import Forbidden, UpgradeRequired
from router.web.transport.scope import PEER

POKE = "{}"
"""The payload of a poke: it says that there is mail, and nothing of it (docs/specification.md#pokes)."""


class Sockets:
    """The handler of ``/connect``."""

    def __init__(self, authenticator: Authenticator, manager: ConnectionManager, work: WorkBudget, cors: Cors) -> None:
        self._authenticator = authenticator
        self._manager = manager
        self._work = work
        self._cors = cors

    def routes(self) -> list[BaseRoute]:
        return [WebSocketRoute("/connect", self), Route("/connect", self.plain, methods=["GET"])]

    async def plain(self, request: Request) -> Response:
        """Refuse a GET without an upgrade."""
        raise UpgradeRequired(f"{request.url.path} is a WebSocket: connect with ws:// or wss://")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        # Taken out of the scope: the socket holds the scope, and must not hold itself.
        socket = AsgiSocket(send, scope.pop(PEER, None))
        # What this raises becomes an HTTP answer instead of the upgrade.
        connection, subprotocol = await self._connect(headers_of(scope), socket)
        try:
            await socket.accept(subprotocol)
            forget_headers(scope)
            del subprotocol  # It may be the token.
            # What a client sends is ignored. The transport limits how much it may send, pings included.
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            # Even if this task is cancelled: presence must not outlive the socket.
            await asyncio.shield(self._manager.disconnect(connection))

    async def _connect(self, headers: Headers, socket: AsgiSocket) -> tuple[Connection, str | None]:
        origin = headers.get("origin")
        if origin is not None and not self._cors.allows(origin) and not same_host(origin, headers.get("host")):
            raise Forbidden("this origin is not in server.allowed_origins")
        token, subprotocol = from_handshake(headers)
        principal = await self._authenticator.authenticate(token)
        call = await self._work.begin(principal.user)
        try:
            await call.connect()
        finally:
            # Ended before the manager is asked: it may have to ping the user's other connections, to keep its limit.
            call.end()
        connection = await self._manager.connect(principal.user, socket, principal.expires_at, principal.key)
        return connection, subprotocol


class Peer(Protocol):
    """What the server knows of the peer of a WebSocket, beyond ASGI."""

    def ping(self) -> None: ...

    @property
    def silent_seconds(self) -> float: ...


class AsgiSocket:
    """``Socket`` over ASGI; a poke or a close before the upgrade is sent after it."""

    __slots__ = ("_accepted", "_early", "_early_close", "_peer", "_send")

    def __init__(self, send: Send, peer: Peer | None = None) -> None:
        """``peer``: ``None`` if the server does not provide it; the peer then counts as one that answers."""
        self._send = send
        self._peer = peer
        self._accepted = False
        self._early = False
        self._early_close: tuple[int, str] | None = None

    async def accept(self, subprotocol: str | None) -> None:
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self._accepted = True
        # If the peer is gone, the next receive says so.
        with contextlib.suppress(ConnectionError):
            if self._early_close is not None:
                await self.close(*self._early_close)
            elif self._early:
                await self.poke()

    async def poke(self) -> None:
        if self._accepted:
            await self._emit({"type": "websocket.send", "text": POKE})
        else:
            self._early = True

    def ping(self) -> None:
        if self._peer is not None:
            self._peer.ping()

    @property
    def silent_seconds(self) -> float:
        return 0.0 if self._peer is None else self._peer.silent_seconds

    async def close(self, code: int, reason: str) -> None:
        if self._accepted:
            await self._emit({"type": "websocket.close", "code": code, "reason": reason})
        else:
            self._early_close = code, reason

    async def _emit(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except (ClientDisconnect, RuntimeError) as error:
            # The latter is uvicorn's word for a socket that is closed already.
            raise ConnectionError("the socket is closed") from error
