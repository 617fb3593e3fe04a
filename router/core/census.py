"""Counts what all queues hold, for the gauges: one process at a time does so for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from router.clock import Clock
from router.errors import RouterError
from router.interfaces import ColdQueue, IngressProducer, OnlineStore
from router.messages import Census
from router.metrics import Metrics

LOCAL_SECONDS, SECONDS = 15.0, 60.0
"""Pause after a count: where all queues are on this machine, and where a count costs calls that are billed."""
SHARE = 50
"""The pause is at least this number of times what the count took: counting takes at most 2 % of the time."""


class CensusTaker:
    """Counts while this process leads, and else tells nothing. State: none but the lead, which the online store has."""

    def __init__(
        self,
        ingress: IngressProducer,
        online: OnlineStore,
        cold: ColdQueue,
        dead_letters: Callable[[], Awaitable[int]] | None,
        *,
        owner: str,
        local: bool,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """``dead_letters``: how many are kept; ``None`` where nobody can tell. ``local``: all queues are on this
        machine."""
        self._ingress = ingress
        self._online = online
        self._cold = cold
        self._dead_letters = dead_letters
        self._owner = owner
        self._pause = LOCAL_SECONDS if local else SECONDS
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            begun = self._clock.monotonic()
            await self.take()
            await self._clock.sleep(max(self._pause, SHARE * (self._clock.monotonic() - begun)))

    async def take(self) -> None:
        """Count, if this process leads. What cannot be counted now is not told: an old count would be wrong."""
        census = None
        try:
            with suppress(RouterError):  # `core.dependencies` logs it
                if await self._online.lead(self._owner):
                    census = await self._count()
        finally:
            self._metrics.census(census)

    async def _count(self) -> Census:
        ingress, online = await self._ingress.backlog(), await self._online.online()
        # Hot, the tier that messages leave, first: so none is missed in between.
        hot, cold = await self._online.totals(None), await self._cold.totals(None)
        letters = None if self._dead_letters is None else await self._dead_letters()
        return Census(self._clock.now(), ingress, hot, cold, online, letters)
