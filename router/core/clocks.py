"""Compares this machine's clock with the clock of the online store, which all nodes share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from router import logs
from router.clock import Clock
from router.errors import RouterError
from router.interfaces import OnlineStore
from router.metrics import Metrics
from router.timekeeping import Timekeeper

LOG = logs.logger(__name__)
LOOK_SECONDS = 60.0
BEGIN_SECONDS = 3.0
"""Time-out of the first comparison: a slow store must not keep a process from starting."""
WARN_SECONDS = 5.0
"""Clocks that differ by this much are a fault; a time service that is still adjusting differs by less."""


class ClockWatch:
    """Compares the clocks once a minute. Its state: whether they differed at the last comparison."""

    def __init__(self, online: OnlineStore, clock: Clock, keeper: Timekeeper, metrics: Metrics) -> None:
        self._online = online
        self._clock = clock
        self._keeper = keeper
        self._metrics = metrics
        self._apart = False

    async def begin(self) -> None:
        """Compare before this process dates or deletes any mail: it may start with a wrong clock."""
        with suppress(RouterError, TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                await self.look()

    async def run(self) -> None:
        """Compare until cancelled; what fails is repeated the next time."""
        while True:
            with suppress(RouterError):  # `core.dependencies` logs it
                await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Compare; log when the clocks begin to differ and when they agree again. Raises ``RouterError``."""
        ahead = await self._online.compare_clocks()
        self._keeper.measured(ahead)
        self._metrics.clock_ahead(ahead)
        apart = abs(ahead) >= WARN_SECONDS
        if apart and not self._apart:
            LOG.warning(
                "this machine's clock and that of the online store differ; run a time service on every node, since "
                "leases and tokens depend on the clock",
                seconds_ahead=round(ahead, 1),
            )
        elif self._apart and not apart:
            LOG.warning("this machine's clock and that of the online store agree again")
        self._apart = apart
