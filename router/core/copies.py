"""What belongs in cold comes there, and is announced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.core.deliveries import InFlight, Step, at, copies_of, move, not_at
from router.core.outcomes import SILENT
from router.core.settler import Settler
from router.errors import Refused
from router.interfaces import ColdQueue, PushNotifier
from router.messages import Message, Queued, Routed
from router.metrics import Metrics
from router.timekeeping import Timekeeper


class Unstorable(Exception):
    """The cold queue will never take this message; what it says of it is the message of this error."""


class Copies:
    """Writes deliveries to cold, and tells of that; all raise ``Unavailable``, ``TimeoutError`` and ``Unstorable``."""

    def __init__(
        self,
        cold: ColdQueue,
        settler: Settler,
        push: PushNotifier,
        *,
        keeper: Timekeeper,
        metrics: Metrics,
        call_seconds: float,
    ) -> None:
        """A call that has not ended within ``call_seconds`` counts as failed."""
        self._cold = cold
        self._settler = settler
        self._push = push
        self._keeper = keeper
        self._metrics = metrics
        self._call_seconds = call_seconds

    async def store(self, flights: Sequence[InFlight]) -> None:
        """Write to cold what of ``flights`` is PLACED, then announce. What cold refuses this time is TRIED then."""
        await self._write(at(flights, Step.PLACED))
        await self.settle([flight for flight in at(flights, Step.WRITTEN) if flight.outage_place is None])
        written = not_at(flights, Step.TRIED)
        await self.announce([flight.message for flight in written if flight.outcome not in SILENT])

    async def settle(self, written: Sequence[InFlight]) -> None:
        """The online store knows then what cold has of ``written``."""
        await self._settler.settle(copies_of(written))
        move(written, Step.SETTLED)

    async def write_again(self, flights: Sequence[InFlight]) -> set[str]:
        """Write what of ``flights`` is TRIED, in the places that it had; returns the recipients of what cold refused
        again.

        To be done before the online store is asked again: where that came back empty, it gives a later place, and what
        was routed behind may be in cold already.
        """
        tried = at(flights, Step.TRIED)
        await self._put(tried)
        return {flight.recipient for flight in at(tried, Step.TRIED)}

    async def announce(self, messages: Sequence[Message]) -> None:
        """Publish their push commands."""
        if messages:
            async with asyncio.timeout(self._call_seconds):
                await self._push.publish(messages)
            self._metrics.pushed(len(messages))

    async def _write(self, placed: Sequence[InFlight]) -> None:
        """Write those that cold is not known to have."""
        for flight in placed:
            copy = self._copy(flight)
            kept = flight.copy
            if kept is not None and (kept.sequence, kept.unreported) == (copy.sequence, copy.unreported):
                flight.step = Step.WRITTEN
            else:
                flight.step, flight.copy = Step.TRIED, copy
        await self._put(at(placed, Step.TRIED))

    def _copy(self, flight: InFlight) -> Queued:
        """The copy that ``flight`` asks for. Of two, the one in the earlier place stays."""
        assert flight.routed is not None, "only what is routed has a place"
        place: Routed | Queued = flight.routed
        if flight.copy is not None and flight.copy.sequence < place.sequence:
            place = flight.copy
        unreported = flight.outage_place is not None
        queued = Queued(
            flight.message, place.sequence, place.queued_at, attempts=flight.delivery.attempt, unreported=unreported
        )
        return self._keeper.dated(queued)

    async def _put(self, tried: Sequence[InFlight]) -> None:
        if not tried:
            return
        try:
            async with asyncio.timeout(self._call_seconds):
                refused = {queued.message.name for queued in await self._cold.put(copies_of(tried))}
        except Refused as error:
            raise Unstorable(str(error)) from error
        move([flight for flight in tried if flight.message.name not in refused], Step.WRITTEN)
