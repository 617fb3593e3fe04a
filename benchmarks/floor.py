"""The floor: the router's routes, sockets and pokes in bare Starlette, in memory.

It has no durability, no tokens, no order and no limits, and so says what this stack can do at most. Its "token" is
the user's name, filled up to the length of a real one, so that both servers read as many bytes.

Run: ``python -m benchmarks.floor PORT``.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import msgspec
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TOKEN_LENGTH = 480
_FILLER = "."
JSON = "application/json"


class _Envelope(Struct, rename="camel"):
    recipient_id: str


class _Send(Struct):
    envelope: msgspec.Raw


class _Sends(Struct):
    messages: list[_Send]


class _Ack(Struct, rename="camel"):
    message_ids: list[str]
    limit: int = 50


class _User:
    """One user's mail and sockets."""

    __slots__ = ("fetched", "mail", "sockets")

    def __init__(self) -> None:
        self.mail: dict[str, bytes] = {}
        self.sockets: set[WebSocket] = set()
        self.fetched = True
        """Since the last poke: until then another one tells nothing new."""


_recipient = msgspec.json.Decoder(_Envelope).decode
_sends = msgspec.json.Decoder(_Sends).decode
_ack = msgspec.json.Decoder(_Ack).decode
_ids = itertools.count()
_users: dict[str, _User] = {}


def token(user: str) -> str:
    """What the floor takes for a token."""
    return user.ljust(TOKEN_LENGTH, _FILLER)


def _user(name: str) -> _User:
    user = _users.get(name)
    if user is None:
        user = _users[name] = _User()
    return user


def _caller(connection: HTTPConnection) -> _User:
    return _user(connection.headers["authorization"].removeprefix("Bearer ").rstrip(_FILLER))


async def send(request: Request) -> Response:
    return Response(await _kept(await request.body()), 202, media_type=JSON)


async def send_batch(request: Request) -> Response:
    sends = _sends(await request.body()).messages
    results = [await _kept(bytes(send.envelope)) for send in sends]
    return Response(b'{"results":[%b]}' % b",".join(results), 202, media_type=JSON)


async def _kept(envelope: bytes) -> bytes:
    user, id_ = _user(_recipient(envelope).recipient_id), f"{next(_ids):036x}"
    user.mail[id_] = envelope
    if user.fetched and user.sockets:
        user.fetched = False
        for socket in list(user.sockets):
            await socket.send_text("{}")
    return b'{"id":"%b"}' % id_.encode()


async def messages(request: Request) -> Response:
    return _page(_caller(request), int(request.query_params.get("limit", "50")))


async def next_page(request: Request) -> Response:
    user, asked = _caller(request), _ack(await request.body())
    for id_ in asked.message_ids:
        user.mail.pop(id_, None)
    return _page(user, asked.limit)


def _page(user: _User, limit: int) -> Response:
    user.fetched = True
    page = itertools.islice(user.mail.items(), limit)
    parts = [b'{"id":"%b","envelope":%b}' % (id_.encode(), envelope) for id_, envelope in page]
    return Response(b'{"messages":[%b]}' % b",".join(parts), media_type=JSON)


async def acknowledge(request: Request) -> Response:
    mail = _caller(request).mail
    for id_ in _ack(await request.body()).message_ids:
        mail.pop(id_, None)
    return Response(status_code=204)


async def connect(socket: WebSocket) -> None:
    user = _caller(socket)
    await socket.accept()
    user.sockets.add(socket)
    try:
        if user.mail:
            await socket.send_text("{}")
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        user.sockets.discard(socket)


async def ready(request: Request) -> Response:
    del request
    return Response(status_code=200)


def application() -> Starlette:
    """The routes and nothing else."""
    return Starlette(
        routes=[
            Route("/api/send", send, methods=["POST"]),
            Route("/api/send/batch", send_batch, methods=["POST"]),
            Route("/api/messages", messages, methods=["GET"]),
            Route("/api/messages/next", next_page, methods=["POST"]),
            Route("/api/messages/ack", acknowledge, methods=["POST"]),
            Route("/readyz", ready, methods=["GET"]),
            WebSocketRoute("/connect", connect),
        ]
    )


def main(arguments: list[str]) -> None:
    """Serve on the port that is named; uvicorn is set up as the router sets it up."""
    options: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "ws": "websockets-sansio"}
    uvicorn.run(
        application(),
        host="127.0.0.1",
        port=int(arguments[0]),
        backlog=2048,
        ws_per_message_deflate=False,
        ws_max_size=4096,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        **options,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
