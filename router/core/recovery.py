"""The end of an outage: the online store is told what was routed without it, and then the ingress."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from router.clock import Clock
from router.core.deliveries import Deliveries, copies_of
from router.core.ingress_receipts import Receipts
from router.core.outage import Outage
from router.core.settler import Settler
from router.errors import RouterError
from router.interfaces import OnlineStore
from router.retry import backoff


class Recovery:
    """Ends an outage."""

    def __init__(
        self,
        online: OnlineStore,
        settler: Settler,
        receipts: Receipts,
        deliveries: Deliveries,
        outage: Outage,
        *,
        clock: Clock,
        chance: random.Random,
        batch: int,
        call_seconds: float,
    ) -> None:
        """``batch``: how many deliveries are told of at once. A call that has not ended within ``call_seconds`` counts
        as failed."""
        self._online = online
        self._settler = settler
        self._receipts = receipts
        self._deliveries = deliveries
        self._outage = outage
        self._clock = clock
        self._chance = chance
        self._batch = batch
        self._call_seconds = call_seconds

    async def run(self) -> None:
        """Return when the online store can be reached again and knows what was routed without it."""
        failures = 0
        while self._outage.lasts:
            failures += 1
            await self._clock.sleep(backoff(failures, self._chance))
            # A refusal too may pass; if this ended, all mail would go cold until the next start.
            with suppress(RouterError, TimeoutError):
                await self._tell_owed()
                self._outage.end(self._deliveries)

    async def _tell_owed(self) -> None:
        async with asyncio.timeout(self._call_seconds):
            await self._online.probe()
        while owed := self._deliveries.oldest_owed(self._batch):
            await self._settler.settle(copies_of(owed))
            await self._receipts.acknowledge(owed)
