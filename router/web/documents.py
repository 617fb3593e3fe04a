"""The documents that describe the service, which anybody may read: OpenAPI of the requests, AsyncAPI of the socket."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.web import asyncapi, openapi


def routes() -> list[Route]:
    """``GET /openapi.json`` and ``GET /asyncapi.json``."""
    return [_route("/openapi.json", openapi.document()), _route("/asyncapi.json", asyncapi.document())]


def _route(path: str, document: dict[str, Any]) -> Route:
    # Made once, since anybody may ask for it as often as they like.
    answer = JSONResponse(document)

    async def described(request: Request) -> Response:
        del request
        return answer

    return Route(path, described, methods=["GET"])
