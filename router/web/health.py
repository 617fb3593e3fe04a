"""Liveness and readiness. The public ports say nothing more; the admin port names what fails, and has the metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.core.readiness import Readiness
from router.metrics import CONTENT_TYPE, Metrics
from router.web import problems


class Health:
    """The routes by which this process reports its health."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    def public_routes(self) -> list[Route]:
        """For the public ports: the answers neither depend on what users do nor say what fails."""
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
        """200 whenever the event loop runs; no dependency is asked, since a restart fixes none."""
        del request
        return JSONResponse({"status": "alive"})

    async def bare(self, request: Request) -> Response:
        """The status of ``ready``, 200 or 503, and nothing else."""
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
