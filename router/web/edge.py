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
    return Edge(Router(routes), border)


class Edge:
    """Wraps an application; turns the router's errors into problem documents."""

    def __init__(self, app: ASGIApp, border: Border) -> None:
        self._app = app
        self._border = border
        self._under_way: set[asyncio.Task[Any]] = set()

    async def finish(self) -> None:
        """Return when the requests that are under way now are answered."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        id_ = request_id(headers)
        origin = headers.get("origin")
        status = 0
        started = asyncio.get_running_loop().time()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._decorate(MutableHeaders(scope=message), id_, origin)
            await send(message)

        task = asyncio.current_task()
        assert task is not None, "asyncio runs a coroutine in a task"
        self._under_way.add(task)
        structlog.contextvars.bind_contextvars(request_id=id_)
        try:
            await self._answer(scope, receive, answer, headers)
        except Exception:
            LOG.exception("request failed", path=scope["path"])
            if status:
                raise
            await problems.internal_error()(scope, receive, answer)
        finally:
            self._under_way.discard(task)
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self._border.metrics.answered(route, status, asyncio.get_running_loop().time() - started)
            structlog.contextvars.clear_contextvars()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
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
            await problems.not_served(error, scope["method"], scope["path"])(scope, receive, send)

    def _decorate(self, headers: MutableHeaders, id_: str, origin: str | None) -> None:
        headers["x-request-id"] = id_
        headers.add_vary_header("Origin")
        if origin is not None and self._border.allows(origin):
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "Retry-After, X-Request-Id"


def request_id(headers: Headers) -> str:
    """The caller's ``X-Request-Id`` where it is a sane one, else a new one."""
    given = headers.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
