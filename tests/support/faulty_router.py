"""A router that looks like one and breaks a promise: in memory, on the routes of the real one."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from collections import defaultdict

import jwt
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from router.bench.ledger import Fault

FAULTY = 1
"""The message of each user to which it happens, counted from 0."""


class FaultyRouter:
    """``fault`` happens to one message of each user, and nothing else does. An ``old`` one acknowledges and fetches by
    two requests only."""

    def __init__(self, fault: Fault | None = None, *, old: bool = False) -> None:
        self.fault = fault
        self.followed = 0
        """So many pages were asked for with an acknowledgement."""
        self.mail: dict[str, dict[str, object]] = defaultdict(dict)
        self.sends: list[dict[str, str]] = []
        """The headers of each."""
        self.refuse: Response | None = None
        """What each send is answered, if it is not accepted."""
        self._counts: dict[str, int] = defaultdict(int)
        self._held_back: dict[str, tuple[str, object]] = {}
        self._came_back: set[str] = set()
        self._poked: set[str] = set()
        """Who has not fetched since."""
        self._sockets: dict[str, set[WebSocket]] = defaultdict(set)
        self.app = Starlette(
            routes=[
                Route("/api/send", self._send, methods=["POST"]),
                Route("/api/messages", self._messages),
                Route("/api/messages/ack", self._acknowledge, methods=["POST"]),
                *([] if old else [Route("/api/messages/next", self._next, methods=["POST"])]),
                WebSocketRoute("/connect", self._connect),
            ]
        )

    async def _send(self, request: Request) -> Response:
        self.sends.append(dict(request.headers))
        if self.refuse is not None:
            return self.refuse
        envelope = await request.json()
        user, id_ = envelope["recipientId"], str(uuid.uuid4())
        for changed in self._store(user, id_, envelope) - self._poked:
            self._poked.add(changed)
            for socket in list(self._sockets[changed]):
                await socket.send_text("{}")
        return JSONResponse({"id": id_}, 202)

    def _store(self, user: str, id_: str, envelope: dict[str, object]) -> set[str]:
        """Put it where it belongs, or not; whose queues have changed."""
        number = self._counts[user]
        self._counts[user] += 1
        fault = self.fault if number == FAULTY else None
        match fault:
            case Fault.LOST:
                return set()
            case Fault.OUT_OF_ORDER:
                self._held_back[user] = (id_, envelope)
                return set()
            case Fault.ALTERED:
                envelope["signature"] = base64.b64encode(bytes(64)).decode()
            case Fault.SECOND_ID:
                self.mail[user][str(uuid.uuid4())] = envelope
        self.mail[user][id_] = envelope
        if user in self._held_back:
            late, held_back = self._held_back.pop(user)
            self.mail[user][late] = held_back
        if fault is Fault.SOMEBODY_ELSES:
            (other, *_) = self._sockets.keys() - {user}
            self.mail[other][id_] = envelope
            return {user, other}
        return {user}

    async def _messages(self, request: Request) -> Response:
        return self._page(request, int(request.query_params["limit"]))

    def _page(self, request: Request, limit: int) -> Response:
        self._poked.discard(_caller(request))
        mail = itertools.islice(self.mail[_caller(request)].items(), limit)
        return JSONResponse({"messages": [{"id": id_, "envelope": envelope} for id_, envelope in mail]})

    async def _next(self, request: Request) -> Response:
        self.followed += 1
        await self._acknowledge(request)
        return self._page(request, (await request.json())["limit"])

    async def _acknowledge(self, request: Request) -> Response:
        mail = self.mail[_caller(request)]
        for id_ in (await request.json())["messageIds"]:
            if self.fault is Fault.CAME_BACK and _caller(request) not in self._came_back:
                self._came_back.add(_caller(request))
            else:
                mail.pop(id_, None)
        return Response(status_code=204)

    async def _connect(self, socket: WebSocket) -> None:
        sockets = self._sockets[_caller(socket)]
        await socket.accept()
        sockets.add(socket)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(socket)


def _caller(connection: HTTPConnection) -> str:
    token = connection.headers["authorization"].removeprefix("Bearer ")
    return str(jwt.decode(token, options={"verify_signature": False})["sub"])


def problem(status: int, kind: str) -> Response:
    """A refusal as the real one has it."""
    body = json.dumps({"type": f"urn:sealed-router:problem:{kind}", "detail": f"this is {kind}"})
    return Response(body, status, media_type="application/problem+json")
