"""Where deliveries go: the online store says it, or in an outage the pipeline itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from router.clock import Clock
from router.core.deliveries import InFlight
from router.core.outage import Outage
from router.core.outcomes import step_after
from router.errors import Unavailable
from router.interfaces import OnlineStore
from router.messages import Routed
from router.metrics import Metrics


class Placement:
    """Routes deliveries, and notices that an outage begins."""

    def __init__(
        self,
        online: OnlineStore,
        outage: Outage,
        begin_outage: Callable[[], None],
        *,
        write_through: bool,
        clock: Clock,
        metrics: Metrics,
        call_seconds: float,
    ) -> None:
        """``begin_outage`` is called when one begins. A call that has not ended within ``call_seconds`` counts as
        failed."""
        self._online = online
        self._outage = outage
        self._begin_outage = begin_outage
        self._write_through = write_through
        self._clock = clock
        self._metrics = metrics
        self._call_seconds = call_seconds

    async def place(self, flights: Sequence[InFlight]) -> None:
        """Route ``flights``, which are readable: what becomes of each is in it then."""
        results = await self._ask(flights)
        if results is None:
            now = self._clock.now()
            results = [self._outage.place(flight, now) for flight in flights]
        for flight, routed in zip(flights, results, strict=True):
            flight.routed = routed
            flight.step = step_after(routed, flight, write_through=self._write_through)
            self._metrics.routed(routed.outcome)
        oldest = min(flight.message.accepted_at for flight in flights)
        self._metrics.routing_took((self._clock.now() - oldest) / 1_000_000)

    async def _ask(self, flights: Sequence[InFlight]) -> list[Routed] | None:
        """Where the online store sends each; ``None`` while it cannot be reached."""
        if self._outage.lasts:
            return None
        try:
            async with asyncio.timeout(self._call_seconds):
                results = await self._online.route([flight.delivery for flight in flights])
        except (Unavailable, TimeoutError):
            if not self._outage.lasts:
                self._outage.lasts = True
                self._begin_outage()
            return None
        return [self._outage.saw(flight, routed) for flight, routed in zip(flights, results, strict=True)]
