"""Liveness, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.core.dependencies import ANSWER_SECONDS
from router.errors import RouterError
from router.metrics import CONTENT_TYPE, Metrics
from router.web import problems

Probe = Callable[[], Awaitable[None]]
Failed = dict[str, str]
"""A dependency that does not work, and its kind."""


class Health:
    """What this process says of itself. ``draining`` is set when it is about to stop."""

    def __init__(self, metrics: Metrics) -> None:
        self._probes: dict[tuple[str, str], Probe] = {}
        self._metrics = metrics
        self.draining = False
        self._asking: asyncio.Task[list[Failed]] | None = None

    def depends(self, dependency: str, kind: str, probe: Probe) -> None:
        """Readiness asks ``probe``, which raises ``RouterError`` while the dependency does not work."""
        self._probes[dependency, kind] = probe

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
            return problems.not_ready("draining", "Going away", "this process is stopping")
        if failed := await self._failed():
            detail = f"not working: {', '.join('{dependency} ({kind})'.format(**each) for each in failed)}"
            return problems.not_ready("unavailable", "Temporarily unavailable", detail, failed)
        return JSONResponse({"status": "ready"})

    async def _failed(self) -> list[Failed]:
        """The dependencies that do not work; all who ask meanwhile share what is found."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> list[Failed]:
        # All at once: one that does not answer must not use up the time of whoever asks.
        works = await asyncio.gather(*map(_works, self._probes.values()))
        names = [{"dependency": dependency, "kind": kind} for dependency, kind in self._probes]
        return [name for name, fine in zip(names, works, strict=True) if not fine]

    async def metrics(self, request: Request) -> Response:
        del request
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)


async def _works(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await probe()
    except (RouterError, TimeoutError):
        return False
    return True
