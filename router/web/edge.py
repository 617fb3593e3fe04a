"""What every HTTP answer has in common: a request id, CORS, metrics, and no traceback."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Sequence
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.errors import RouterError, Unauthorized
from router.logs import logger
from router.metrics import Metrics
from router.web import problems

LOG = logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "Authorization, Content-Type, Idempotency-Key",
    "access-control-max-age": "86400",
}
_STARTS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
CLIENT_GONE = 499
"""What a request is counted as whose client went away before the answer."""
ROUTES = frozenset(
    ("/api/send", "/api/messages", "/api/messages/ack", "/connect", "/healthz", "/readyz", "/metrics", "/openapi.json")
)


class Border:
    """What this process lets in from outside, and what it says of what it does not."""

    def __init__(self, allowed_origins: Sequence[str], metrics: Metrics) -> None:
        self._origins = frozenset(allowed_origins)
        self.metrics = metrics

    def allows(self, origin: str) -> bool:
        """Whether ``server.allowed_origins`` names this browser origin."""
        return origin in self._origins or "*" in self._origins

    def refuse(self, error: RouterError) -> None:
        """Count and log a refusal."""
        kind = problems.kind_of(error)
        reason = error.reason if isinstance(error, Unauthorized) else kind.slug
        self.metrics.refused(reason)
        if kind.status >= 500:
            LOG.warning("refused", status=kind.status, reason=reason, detail=str(error))
        else:
            LOG.info("refused", status=kind.status, reason=reason)

    def cut(self, reason: str) -> None:
        """Count and log a client that was cut off."""
        self.metrics.cut(reason)
        LOG.info("cut off", reason=reason)


def application(routes: Sequence[BaseRoute], border: Border) -> Edge:
    """The routes as one application with everything that its answers have in common."""
    # A redirect to the path without a slash would go to http:// behind a proxy that speaks TLS, token and all.
    return Edge(Router(routes, redirect_slashes=False, default=_not_found), border)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise HTTPException(404)


class Edge:
    """Wraps an application; turns the router's errors into problem documents, also before a WebSocket upgrade."""

    def __init__(self, app: ASGIApp, border: Border) -> None:
        self._app = app
        self._border = border
        self._under_way: set[asyncio.Task[Any]] = set()

    async def finish(self) -> None:
        """Return when the requests that are under way now are answered."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        answer = _Answer(self._border, scope["path"], headers, send)
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        task = asyncio.current_task()
        assert task is not None, "asyncio runs a coroutine in a task"
        # A WebSocket is no request to be finished: the connection manager ends it.
        if scope["type"] == "http":
            self._under_way.add(task)
        try:
            await self._answer(scope, receive, answer, headers)
        except ClientDisconnect:
            # There is nobody to answer, and nothing that we did wrong.
            if not answer.started:
                answer.count(CLIENT_GONE)
        except Exception:
            LOG.exception("request failed", path=scope["path"])
            if answer.started:
                raise
            await problems.internal_error()(scope, receive, answer)
        finally:
            self._under_way.discard(task)
            structlog.contextvars.clear_contextvars()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
            return
        # Tells Starlette's router to raise its refusals instead of answering them in plain text.
        scope["app"] = self
        try:
            await self._app(scope, receive, send)
        except RouterError as error:
            self._border.refuse(error)
            await problems.response(error)(scope, receive, send)
        except HTTPException as error:
            await problems.not_served(error, scope.get("method", "GET"), scope["path"])(scope, receive, send)


class _Answer:
    """The sending end of one request or handshake: completes the headers and counts the answer once."""

    __slots__ = ("_border", "_origin", "_route", "_send", "_since", "request_id", "started")

    def __init__(self, border: Border, path: str, headers: Headers, send: Send) -> None:
        self._border = border
        self._route = path if path in ROUTES else "other"
        self._origin = headers.get("origin")
        self._send = send
        self._since = asyncio.get_running_loop().time()
        self.request_id = request_id(headers)
        self.started = False

    async def __call__(self, message: Message) -> None:
        if not self.started and message["type"] in _STARTS:
            self.started = True
            self._complete(MutableHeaders(scope=message))
            self.count(message.get("status", 101))
        try:
            await self._send(message)
        except OSError as error:
            raise ClientDisconnect from error

    def count(self, status: int) -> None:
        seconds = asyncio.get_running_loop().time() - self._since
        self._border.metrics.answered(self._route, status, seconds)

    def _complete(self, headers: MutableHeaders) -> None:
        headers["x-request-id"] = self.request_id
        headers.add_vary_header("Origin")
        if self._origin is not None and self._border.allows(self._origin):
            headers["access-control-allow-origin"] = self._origin
            headers["access-control-expose-headers"] = "Retry-After, X-Request-Id"


def request_id(headers: Headers) -> str:
    """The caller's ``X-Request-Id`` where it is a sane one, else a new one."""
    given = headers.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
