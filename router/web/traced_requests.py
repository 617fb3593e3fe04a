"""An application whose requests have spans, each in the trace that its ``traceparent`` names."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.spans import Spans, fail
from router.trace_context import TRACEPARENT, TRACESTATE
from router.web.application import ROUTES
from router.web.headers import headers_of
from router.web.request_ids import trace_id_of

METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"


class TracedRequests:
    """``app``, with a span for each HTTP request. A WebSocket has none: it lives for hours, and carries no message."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        named = {}
        if trace_id_of(headers) is not None:
            named = {name: ",".join(headers.every(name)) for name in (TRACEPARENT, TRACESTATE)}
        # Neither the path of what is not served nor any query: a token may be in both.
        route = scope["path"] if scope["path"] in ROUTES else None
        attributes = {METHOD: scope["method"]} | ({} if route is None else {ROUTE: route})
        name = scope["method"] if route is None else f"{scope['method']} {route}"
        with self._spans.request(name, named, attributes) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute(STATUS, message["status"])
                    if message["status"] >= 500:
                        fail(span, str(message["status"]))
                await send(message)

            await self._app(scope, receive, answer)
