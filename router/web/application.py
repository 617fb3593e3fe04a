"""Dispatch and error mapping; every answer has a request id and CORS headers, is counted, and shows no traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import Draining, RouterError
from router.logs import begin_request
from router.web import cors, openapi, problems
from router.web.access_log import OTHER, AccessLog
from router.web.context import EdgeContext
from router.web.headers import Headers, headers_of
from router.web.request_ids import trace_id_of

_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
CLIENT_GONE = 499
"""The status under which a request is counted if its client disconnected before the answer."""
ROUTES = frozenset(
    (
        "/api/send",
        "/api/send/batch",
        "/api/messages",
        "/api/messages/ack",
        "/api/messages/next",
        "/connect",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/page.css",
        "/page.js",
        "/status.json",
        "/openapi.json",
        "/asyncapi.json",
    )
)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise HTTPException(404)


class Application:
    """Finds the route; turns the router's errors into problem documents, also before a WebSocket upgrade."""

    def __init__(self, routes: Sequence[BaseRoute], context: EdgeContext, timer: Callable[[], float]) -> None:
        """``timer`` gives seconds that never go back, for measuring how long an answer took."""
        for path in sorted({route.path for route in routes if isinstance(route, Route | WebSocketRoute)}):
            context.metrics.serves(path, openapi.statuses(path))
        self._context = context
        self._timer = timer
        self._under_way: set[_Answer] = set()
        self._done = asyncio.Event()
        # Behind a proxy that ends TLS, a redirect to the path without a slash would send the token to http://.
        self._router = Router(routes, redirect_slashes=False, default=_not_found)
        # All paths are constant, so a lookup finds what is served. Starlette's router answers everything else.
        self._served: dict[tuple[str, str], ASGIApp] = {
            (method, route.path): route.app
            for route in routes
            if isinstance(route, Route)
            for method in route.methods or ()
        }

    async def finish(self) -> None:
        """Return when the requests that are under way now are answered."""
        waited_for = set(self._under_way)
        while not waited_for.isdisjoint(self._under_way):
            self._done.clear()
            await self._done.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(self._context, self._timer, scope["path"], headers_of(scope), send)
        begin_request(answer.request_id, answer.trace_id)
        # ``finish`` does not wait for WebSockets: the connection manager ends them.
        if scope["type"] == "http":
            self._under_way.add(answer)
        try:
            await self._answer(scope, receive, answer)
        except ClientDisconnect:
            # There is nobody to answer, and this is no fault of the router.
            if not answer.started:
                answer.count(CLIENT_GONE)
        except asyncio.CancelledError:
            # The server's time to stop is over. An answer that has begun ends with its connection.
            if not answer.started:
                await problems.response(Draining("this node is stopping; try again"))(scope, receive, answer)
        except Exception as error:
            self._context.refusals.failed(error, scope["path"])
            if answer.started:
                raise
            await problems.internal_error()(scope, receive, answer)
        finally:
            self._under_way.discard(answer)
            self._done.set()
            if self._context.access_log is not None:
                answer.log(self._context.access_log, scope.get("method", "GET"))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if cors.is_preflight(scope):
            await cors.preflight()(scope, receive, send)
            return
        try:
            await self._route(scope)(scope, receive, send)
        except RouterError as error:
            self._context.refusals.refused(error)
            await problems.response(error)(scope, receive, send)
        except HTTPException as error:
            await problems.not_served(error, scope.get("method", "GET"), scope["path"])(scope, receive, send)

    def _route(self, scope: Scope) -> ASGIApp:
        served = self._served.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if served is not None:
            return served
        # With ``app`` in the scope, Starlette's router raises its refusals instead of answering in plain text.
        scope["app"] = self
        return self._router


class _Answer:
    """The sending end of one request or handshake: completes the header fields and counts the answer once."""

    __slots__ = (
        "_bytes",
        "_context",
        "_origin",
        "_route",
        "_send",
        "_since",
        "_status",
        "_timer",
        "request_id",
        "started",
        "trace_id",
    )

    def __init__(
        self, context: EdgeContext, timer: Callable[[], float], path: str, headers: Headers, send: Send
    ) -> None:
        self._context = context
        self._timer = timer
        self._route = path if path in ROUTES else OTHER
        self._origin = headers.get("origin")
        self._send = send
        self._since = timer()
        self.request_id = context.request_ids.of(headers)
        self.trace_id = trace_id_of(headers)
        self.started = False
        self._status = self._bytes = 0

    async def __call__(self, message: Message) -> None:
        if not self.started and message["type"] in _STARTS:
            self.started = True
            # No handler sets any of these fields.
            message["headers"] = [*message["headers"], *self._context.common_headers(self.request_id, self._origin)]
            self.count(message.get("status", 101))
        elif body := message.get("body"):
            self._bytes += len(body)
        try:
            await self._send(message)
        except OSError as error:
            raise ClientDisconnect from error

    def count(self, status: int) -> None:
        self._status = status
        self._context.metrics.answered(self._route, status, self._timer() - self._since)

    def log(self, access_log: AccessLog, method: str) -> None:
        access_log.ended(method, self._route, self._status, self._timer() - self._since, self._bytes)
