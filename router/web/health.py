"""Liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.errors import RouterError
from router.metrics import CONTENT_TYPE, Metrics

PROBE_SECONDS = 3.0
Probe = Callable[[], Awaitable[None]]


class Health:
    """What this process says of itself. ``draining`` is set when it is about to stop."""

    def __init__(self, metrics: Metrics) -> None:
        self._probes: dict[str, Probe] = {}
        self._metrics = metrics
        self.draining = False

    def depends(self, name: str, probe: Probe) -> None:
        """Readiness asks ``probe``, which raises ``RouterError`` while the dependency does not work."""
        self._probes[name] = probe

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def alive(self, request: Request) -> Response:
        """The event loop turns; no dependency is asked, since a restart mends none."""
        del request
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """503 while draining or while a dependency does not answer."""
        del request
        if self.draining:
            return JSONResponse({"status": "draining"}, 503)
        failed = [name for name, probe in self._probes.items() if not await _works(probe)]
        if failed:
            return JSONResponse({"status": "unavailable", "failed": failed}, 503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)


async def _works(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe()
    except (RouterError, TimeoutError):
        return False
    return True
