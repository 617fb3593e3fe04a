"""``GET /`` of the admin port: a page for people that says how the service fares, and the JSON from which it is drawn.

It is for those who may read the metrics, says no more than they do, and names no user. It takes no input: its scripts
and styles are files of the router, and its policy lets a browser load nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.core.status import Status

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def routes(look: Callable[[], Awaitable[Status]]) -> list[Route]:
    """The page, its files, and ``/status.json``, which tells what ``look`` finds."""

    async def tell(request: Request) -> Response:
        """200 also while the service is not ready: it says so."""
        del request
        return Response(msgspec.json.encode(await look()), media_type="application/json", headers=HEADERS)

    return [*map(_file, FILES), Route("/status.json", tell, methods=["GET"])]


def _file(path: str) -> Route:
    name, kind = FILES[path]
    content = files("router.web").joinpath("page", name).read_bytes()

    async def answer(request: Request) -> Response:
        del request
        return Response(content, media_type=kind, headers=HEADERS)

    return Route(path, answer, methods=["GET"])
