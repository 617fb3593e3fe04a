"""Liveness and readiness. The public ports say nothing more; the admin port names what fails, and has the metrics."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.core.readiness import State
from router.core.status import Status, status
from router.metrics import CONTENT_TYPE
from router.web import operator_page, problems


class Ready(Protocol):
    """Knows whether a process, or several as one, can work."""

    async def state(self) -> State: ...


class Exposed(Protocol):
    """Has metrics, of a process or of several as one."""

    async def expose(self) -> bytes:
        """The text exposition format."""
        ...


class Health:
    """The routes by which a service reports its health."""

    def __init__(self, readiness: Ready, metrics: Exposed) -> None:
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
            *operator_page.routes(self.status),
        ]

    async def status(self) -> Status:
        """What the page of the admin port shows."""
        return status((await self._metrics.expose()).decode(), await self._readiness.state())

    async def alive(self, request: Request) -> Response:
        """200 whenever the event loop runs; no dependency is asked, since a restart fixes none."""
        del request
        return JSONResponse({"status": "alive"})

    async def bare(self, request: Request) -> Response:
        """The status of ``ready``, 200 or 503, and nothing else."""
        del request
        if not (await self._readiness.state()).is_ready:
            return Response(status_code=503, headers={"retry-after": str(problems.RETRY_SECONDS)})
        return Response()

    async def ready(self, request: Request) -> Response:
        """503 while draining or while a dependency does not answer."""
        del request
        state = await self._readiness.state()
        if state.draining:
            return problems.not_ready("draining", "Going away", "this process is stopping")
        if failed := state.failed:
            detail = f"not working: {', '.join('{dependency} ({kind})'.format(**each) for each in failed)}"
            return problems.not_ready("unavailable", "Temporarily unavailable", detail, failed)
        return JSONResponse({"status": "ready"} | ({"limited": state.limited} if state.limited else {}))

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(await self._metrics.expose(), media_type=CONTENT_TYPE)
