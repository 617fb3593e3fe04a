"""Liveness and readiness, as strangers may see them; by name, with the metrics, on the admin port."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.clock import Clock
from router.core.dependencies import ANSWER_SECONDS
from router.errors import RouterError
from router.metrics import CONTENT_TYPE, Metrics
from router.web import problems

FRESH_SECONDS = 1.0
"""How long a result is reused: a flood of requests asks each dependency once a second."""
Probe = Callable[[], Awaitable[None]]
Failed = dict[str, str]
"""A dependency that does not work, and its kind."""


class Health:
    """What this process says of itself. ``draining`` is set when it is about to stop."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._probes: dict[tuple[str, str], Probe] = {}
        self._metrics = metrics
        self._clock = clock
        self._limits: list[Callable[[], str]] = []
        self.draining = False
        self._asking: asyncio.Task[list[Failed]] | None = None
        self._found_at: float | None = None

    def depends(self, dependency: str, kind: str, probe: Probe) -> None:
        """Readiness asks ``probe``, which raises ``RouterError`` while the dependency does not work. ``router.service``
        says what each service depends on."""
        self._probes[dependency, kind] = probe

    def limited(self, look: Callable[[], str]) -> None:
        """Readiness says what ``look`` says is not served now, if anything: no reason to send nobody here."""
        self._limits.append(look)

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
        if self.draining or await self._failed():
            return Response(status_code=503, headers={"retry-after": str(problems.RETRY_SECONDS)})
        return Response()

    async def ready(self, request: Request) -> Response:
        """503 while draining or while a dependency does not answer."""
        del request
        if self.draining:
            return problems.not_ready("draining", "Going away", "this process is stopping")
        if failed := await self._failed():
            detail = f"not working: {', '.join('{dependency} ({kind})'.format(**each) for each in failed)}"
            return problems.not_ready("unavailable", "Temporarily unavailable", detail, failed)
        limited = [said for look in self._limits if (said := look())]
        return JSONResponse({"status": "ready"} | ({"limited": limited} if limited else {}))

    async def _failed(self) -> list[Failed]:
        """The dependencies that do not work; all who ask meanwhile, and a moment later, share what is found."""
        if self._asking is None or (self._asking.done() and not self._fresh()):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    def _fresh(self) -> bool:
        return self._found_at is not None and self._clock.monotonic() - self._found_at < FRESH_SECONDS

    async def _ask(self) -> list[Failed]:
        # All at once: one that does not answer must not use up the time of whoever asks.
        works = await asyncio.gather(*map(_works, self._probes.values()))
        self._found_at = self._clock.monotonic()
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
