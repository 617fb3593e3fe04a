"""Liveness and readiness, as strangers may see them; by name, with the metrics, on the admin port."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.core.readiness import Readiness
from router.metrics import CONTENT_TYPE, Metrics
from router.web import problems


class Health:
    """What this process says of itself."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    def public_routes(self) -> list[Route]:
        """For the ports that the world sees: nothing in it moves with what users do, nor says what fails."""
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.bare, methods=["GET"]),
        ]

    def admin_routes(self) -> list[Route]:
        """For the admin port."""
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def alive(self, request: Request) -> Response:
        """The event loop turns; no dependency is asked, since a restart fixes none."""
        del request
        return JSONResponse({"status": "alive"})

    async def bare(self, request: Request) -> Response:
        """Whether ``ready`` is 200 or 503, and nothing else."""
        del request
        if self._readiness.draining or await self._readiness.failed():
            return Response(status_code=503, headers={"retry-after": str(problems.RETRY_SECONDS)})
        return Response()

    async def ready(self, request: Request) -> Response:
        """503 while draining or while a dependency does not answer."""
        del request
        if self._readiness.draining:
            return problems.not_ready("draining", "Going away", "this process is stopping")
        if failed := await self._readiness.failed():
            detail = f"not working: {', '.join('{dependency} ({kind})'.format(**each) for each in failed)}"
            return problems.not_ready("unavailable", "Temporarily unavailable", detail, failed)
        limited = self._readiness.limits()
        return JSONResponse({"status": "ready"} | ({"limited": limited} if limited else {}))

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)
