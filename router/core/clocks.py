"""Watching this machine's clock against that of the online store, which all nodes share."""

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
"""A store that is slower to say what time it is does not keep a process from its work."""
WARN_SECONDS = 5.0
"""Clocks that are further apart are a fault, and no matter of a time service that is still at work."""


class ClockWatch:
    """Compares the clocks once a minute. Its state: whether they were apart when it looked last."""

    def __init__(self, online: OnlineStore, clock: Clock, keeper: Timekeeper, metrics: Metrics) -> None:
        self._online = online
        self._clock = clock
        self._keeper = keeper
        self._metrics = metrics
        self._apart = False

    async def begin(self) -> None:
        """Look before any mail is dated or deleted: a process may start with a clock that is wrong."""
        with suppress(RouterError, TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                await self.look()

    async def run(self) -> None:
        """Look until cancelled; a store that cannot be asked just now is asked again."""
        while True:
            with suppress(RouterError):  # what fails is told of where it is called
                await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Compare; there is a line in the log when the clocks come apart, and one when they agree again."""
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
