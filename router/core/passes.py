"""One pass over a batch: it is routed as a whole, and then divided by what is owed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.core.copies import Copies
from router.core.deliveries import InFlight, Step, at, not_at
from router.core.ingress_receipts import Receipts
from router.core.outcomes import apart
from router.core.placement import Placement
from router.core.recipients import by_recipient
from router.core.undeliverable import Undeliverable


class Passes:
    """What a pass does. ``run`` and ``follow`` raise ``Unavailable``, ``TimeoutError`` and ``Unstorable``; what is held
    then is to be tried again."""

    def __init__(
        self,
        placement: Placement,
        copies: Copies,
        undeliverable: Undeliverable,
        receipts: Receipts,
        start: Callable[[Sequence[InFlight]], None],
    ) -> None:
        """``start`` takes over what is routed, and calls ``follow`` for it."""
        self._placement = placement
        self._copies = copies
        self._undeliverable = undeliverable
        self._receipts = receipts
        self._start = start

    async def run(self, batch: Sequence[InFlight]) -> list[InFlight]:
        """Do all that is owed for ``batch``; returns what must be tried again."""
        refused = at(batch, Step.REFUSED)
        readable = not_at(batch, Step.FINISHED, Step.REFUSED)
        await self._receipts.acknowledge(at(batch, Step.FINISHED))
        left = await self._undeliverable.publish(refused)
        stuck = await self._copies.write_again(readable)
        left += [flight for flight in readable if flight.recipient in stuck]
        readable = [flight for flight in readable if flight.recipient not in stuck]
        if not readable:
            return left
        await self._placement.place(readable)
        parts = apart(readable)
        if len(parts) == 1:
            return left + await self.follow(readable)
        # Nothing may fail from here on: these are no longer this batch's.
        for part in parts:
            self._start(part)
        return left

    async def follow(self, part: Sequence[InFlight]) -> list[InFlight]:
        """Do what the outcomes of ``part``, which is routed, owe; returns what must be tried again."""
        refused, done = at(part, Step.REFUSED), at(part, Step.WRITTEN)
        stored = at(part, Step.PLACED, Step.SETTLED)
        unsaid = await self._undeliverable.publish(refused)
        # Acknowledged before the store was told of the copy: whoever did it found none to delete.
        await self._copies.settle(done)
        await self._receipts.finish(done)
        # What has its place comes before what has none.
        return [*(await self._store(stored) if stored else ()), *unsaid]

    async def _store(self, stored: Sequence[InFlight]) -> list[InFlight]:
        """Have what is owed to cold stored there; returns what must be tried again."""
        if any(flight.outage_place for flight in stored):
            return await self._store_in_turn(stored)
        await self._copies.store(stored)
        await self._receipts.finish(not_at(stored, Step.TRIED))
        return at(stored, Step.TRIED)

    async def _store_in_turn(self, stored: Sequence[InFlight]) -> list[InFlight]:
        """Write one recipient's messages to cold one after another, so that what is there is always the head of them.

        Nobody else knows their sequences: where this process ends, those that were not written get later ones.
        """
        left: list[InFlight] = []
        lines = by_recipient(stored)
        while lines:
            heads = [line[0] for line in lines]
            await self._copies.store(heads)
            self._receipts.mark_owed(at(heads, Step.WRITTEN))
            left += [flight for line in lines if line[0].step is Step.TRIED for flight in line]
            lines = [line[1:] for line in lines if line[0].step is Step.OWED and len(line) > 1]
        return left
