"""What the ingress is told of deliveries, and what it is to keep until later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from router.core.deliveries import Deliveries, InFlight, Step, move
from router.errors import Unavailable
from router.interfaces import IngressConsumer


class Receipts:
    """Acknowledges deliveries, or hands them back."""

    def __init__(
        self,
        consumer: IngressConsumer,
        deliveries: Deliveries,
        let_go: Callable[[Sequence[InFlight]], None],
        *,
        call_seconds: float,
    ) -> None:
        """``let_go`` is called with what is held no longer. A call that has not ended within ``call_seconds`` counts as
        failed."""
        self._consumer = consumer
        self._deliveries = deliveries
        self._let_go = let_go
        self._call_seconds = call_seconds

    async def finish(self, flights: Sequence[InFlight]) -> None:
        """All is done for these but telling the ingress; where that fails, nothing else of them is done again. Raises
        like ``acknowledge``."""
        move(flights, Step.FINISHED)
        await self.acknowledge(flights)

    async def acknowledge(self, flights: Sequence[InFlight]) -> None:
        """Tell the ingress of these, which are finished or owed. Raises ``Unavailable`` and ``TimeoutError``."""
        if flights:
            async with asyncio.timeout(self._call_seconds):
                await self._consumer.ack([flight.delivery for flight in flights])
            self._let_go(self._deliveries.let_go(flights))

    async def hand_back(self, seconds: float) -> None:
        """Have the ingress give to another pipeline what it has not been told of; waits no longer than ``seconds``."""
        # If that fails, the ingress redelivers them anyway, when it notices that their holder is gone.
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(seconds):
                if left := self._deliveries.unacknowledged():
                    await self._consumer.nack(left)

    def mark_owed(self, written: Sequence[InFlight]) -> None:
        """These are in cold and announced; the ingress keeps them until the online store has been told."""
        self._let_go(self._deliveries.mark_owed(written))
