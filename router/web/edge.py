"""What every HTTP answer has in common: a request id, CORS, metrics, and no traceback."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import get_args

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import ids
from router.config.origins import Origins
from router.errors import Draining, RouterError, TokenProblem, Unauthorized, Unavailable
from router.logs import logger
from router.metrics import Cut, Metrics
from router.sampling import Later, Sampler, in_loop
from router.web import problems
from router.web.headers import Headers, headers_of

LOG = logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID_BYTES = 8
"""Of a request id; random ones, since a count would tell anybody how many requests others make."""
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": (
        "Authorization, Content-Type, Idempotency-Key, X-Request-Id, traceparent, tracestate"
    ),
    "access-control-max-age": "86400",
}
_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
CLIENT_GONE = 499
"""What a request is counted as whose client went away before the answer."""
ROUTES = frozenset(
    ("/api/send", "/api/messages", "/api/messages/ack", "/connect", "/healthz", "/readyz", "/metrics", "/openapi.json")
)


REFUSALS = {kind.slug for error, kind in problems.KINDS.items() if error is not Unauthorized} | {
    *get_args(TokenProblem)
}
"""The reasons of all refusals: why a token was not believed, or what kind of problem it is."""


class Border:
    """What this process lets in from outside, and what it says of what it does not."""

    def __init__(
        self,
        allowed_origins: Sequence[str],
        metrics: Metrics,
        most_connections: int | None = None,
        later: Later = in_loop,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        """``most_connections`` may be open at once, on all ports together; any number, if unset. ``entropy`` gives the
        random bytes of what clients see and are to learn nothing from.

        Each refusal and each client cut off is counted; of many alike, the log has some and the number of the others.
        """
        self._origins = Origins(allowed_origins)
        self.metrics = metrics
        self.entropy = entropy or ids.Entropy()
        metrics.refusals(sorted(REFUSALS))
        self._most_connections = most_connections
        self._sampler = Sampler(_left_out, later)
        self._connections = 0

    def enter(self) -> bool:
        """A connection is open; whether it may stay. ``leave`` is due in any case."""
        self._connections += 1
        return self._most_connections is None or self._connections <= self._most_connections

    def leave(self) -> None:
        """A connection has ended."""
        self._connections -= 1

    def allows(self, origin: str) -> bool:
        """Whether ``server.allowed_origins`` names this browser origin."""
        return self._origins.allow(origin)

    def request_id(self, headers: Headers) -> str:
        """The caller's ``X-Request-Id`` where it is a sane one, else a new one."""
        given = headers.get("x-request-id")
        return given if given and _REQUEST_ID.fullmatch(given) else self.entropy(REQUEST_ID_BYTES).hex()

    def common(self, request_id: str, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Header fields of every answer, errors included; ``origin`` is the page that asks, where a browser says it."""
        common = [(b"x-request-id", request_id.encode()), (b"vary", b"Origin")]
        if origin is not None and self._origins.allow(origin):
            shown = origin.encode() if self._origins.name(origin) else b"*"
            common.append((b"access-control-allow-origin", shown))
            common.append((b"access-control-expose-headers", b"Retry-After, X-Request-Id"))
            if self._origins.trust(origin):
                common.append((b"access-control-allow-credentials", b"true"))
        return common

    def refuse(self, error: RouterError) -> None:
        """Count and log a refusal; nothing is said of the request but its id."""
        kind = problems.kind_of(error)
        reason = error.reason if isinstance(error, Unauthorized) else kind.slug
        self.metrics.refused(reason)
        if not self._sampler.passes(reason):
            return
        if kind.status >= 500:
            LOG.warning("refused", status=kind.status, reason=reason, detail=str(error), **_dependency(error))
        else:
            LOG.info("refused", status=kind.status, reason=reason)

    def cut(self, reason: Cut) -> None:
        """Count and log a client that was cut off."""
        self.metrics.cut(reason)
        if self._sampler.passes(reason):
            LOG.info("cut off", reason=reason)

    def failed(self, error: Exception, path: str) -> None:
        """Log a fault of ours, with its traceback."""
        if self._sampler.passes(type(error).__name__):
            LOG.error("request failed", path=path, exc_info=error)

    def finish(self) -> None:
        """Say now what the log has not had in full."""
        self._sampler.finish()


def _dependency(error: RouterError) -> dict[str, str]:
    return {"dependency": error.dependency} if isinstance(error, Unavailable) and error.dependency else {}


def _left_out(reason: str, count: int) -> None:
    LOG.warning("more of the same", reason=reason, left_out=count)


def application(routes: Sequence[BaseRoute], border: Border, timer: Callable[[], float]) -> Edge:
    """The routes as one application with everything that its answers have in common.

    ``timer`` gives seconds that never go back, for measuring how long an answer took.
    """
    border.metrics.routes(sorted({route.path for route in routes if isinstance(route, Route | WebSocketRoute)}))
    return Edge(routes, border, timer)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise HTTPException(404)


class Endpoint:
    """A handler as an ASGI application.

    Starlette would wrap it in its own exception handlers, twice, for every request; here the edge has them.
    """

    __slots__ = ("_handler",)

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._handler(Request(scope, receive))
        await response(scope, receive, send)


class Edge:
    """Finds the route; turns the router's errors into problem documents, also before a WebSocket upgrade."""

    def __init__(self, routes: Sequence[BaseRoute], border: Border, timer: Callable[[], float]) -> None:
        self._border = border
        self._timer = timer
        self._under_way: set[_Answer] = set()
        self._done = asyncio.Event()
        # A redirect to the path without a slash would go to http:// behind a proxy that speaks TLS, token and all.
        self._router = Router(routes, redirect_slashes=False, default=_not_found)
        # Every path is a fixed text: what is served needs no search. The router answers for what is not.
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
        answer = _Answer(self._border, self._timer, scope["path"], headers_of(scope), send)
        # Never unbound: each request is a task, which has a context of its own.
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        # A WebSocket is not a request to be finished: the connection manager ends it.
        if scope["type"] == "http":
            self._under_way.add(answer)
        try:
            await self._answer(scope, receive, answer)
        except ClientDisconnect:
            # There is nobody to answer, and nothing that we did wrong.
            if not answer.started:
                answer.count(CLIENT_GONE)
        except asyncio.CancelledError:
            # The server stops, and its grace is over. What has begun ends with its connection.
            if not answer.started:
                await problems.response(Draining("this node is stopping; try again"))(scope, receive, answer)
        except Exception as error:
            self._border.failed(error, scope["path"])
            if answer.started:
                raise
            await problems.internal_error()(scope, receive, answer)
        finally:
            self._under_way.discard(answer)
            self._done.set()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _is_preflight(scope):
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
            return
        try:
            await self._route(scope)(scope, receive, send)
        except RouterError as error:
            self._border.refuse(error)
            await problems.response(error)(scope, receive, send)
        except HTTPException as error:
            await problems.not_served(error, scope.get("method", "GET"), scope["path"])(scope, receive, send)

    def _route(self, scope: Scope) -> ASGIApp:
        served = self._served.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if served is not None:
            return served
        # Tells Starlette's router to raise its refusals instead of answering them in plain text.
        scope["app"] = self
        return self._router


def _is_preflight(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and "access-control-request-method" in headers_of(scope)
    )


class _Answer:
    """The sending end of one request or handshake: completes the header fields and counts the answer once."""

    __slots__ = ("_border", "_origin", "_route", "_send", "_since", "_timer", "request_id", "started")

    def __init__(self, border: Border, timer: Callable[[], float], path: str, headers: Headers, send: Send) -> None:
        self._border = border
        self._timer = timer
        self._route = path if path in ROUTES else "other"
        self._origin = headers.get("origin")
        self._send = send
        self._since = timer()
        self.request_id = border.request_id(headers)
        self.started = False

    async def __call__(self, message: Message) -> None:
        if not self.started and message["type"] in _STARTS:
            self.started = True
            # No handler sets any of them.
            message["headers"] = [*message["headers"], *self._border.common(self.request_id, self._origin)]
            self.count(message.get("status", 101))
        try:
            await self._send(message)
        except OSError as error:
            raise ClientDisconnect from error

    def count(self, status: int) -> None:
        self._border.metrics.answered(self._route, status, self._timer() - self._since)
