"""Deliveries that are refused for good: a dead letter tells of each before the ingress forgets it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.core.copies import Copies, Unstorable
from router.core.dead_letters import Refuser
from router.core.deliveries import InFlight
from router.core.dependencies import Reports
from router.core.ingress_receipts import Receipts
from router.core.outage import Outage
from router.core.outcomes import refusal_of
from router.core.settler import Settler
from router.dead_reasons import DeadReason
from router.errors import Unavailable
from router.messages import Delivery


class Undeliverable:
    """Makes dead letters of deliveries, and finishes these."""

    def __init__(
        self,
        refuser: Refuser,
        settler: Settler,
        copies: Copies,
        receipts: Receipts,
        outage: Outage,
        *,
        max_attempts: int,
        reports: Reports,
        call_seconds: float,
    ) -> None:
        """A call that has not ended within ``call_seconds`` counts as failed."""
        self._refuser = refuser
        self._settler = settler
        self._copies = copies
        self._receipts = receipts
        self._outage = outage
        self._max_attempts = max_attempts
        self._reports = reports
        self._call_seconds = call_seconds

    async def publish(self, refused: Sequence[InFlight]) -> list[InFlight]:
        """Returns those that the dead letters do not take now; what came together with them does not wait for it."""
        for index, flight in enumerate(refused):
            try:
                await self._free_place(flight.delivery)
                await self._refuse(flight.delivery, *refusal_of(flight))
                await self._receipts.finish([flight])
            except (Unavailable, TimeoutError):
                return list(refused[index:])
        return []

    async def blame(self, flight: InFlight, tries: int, error: Exception, behind: Sequence[InFlight]) -> bool:
        """``flight`` itself cannot be routed, which says ``error``: it has its tries, then it is a dead letter. Whether
        it is one now. ``behind`` waits for it.

        Earlier deliveries count as none: who gave it back was stopped, or lost it.
        """
        if tries < self._max_attempts:
            return False
        if flight.delivery.message is not None and self._outage.lasts:
            # The store is to forget it, and cannot be told now. What waits behind it is routed by the store again.
            self._outage.withdraw([flight, *behind])
            return False
        try:
            await self._give_up(flight, error)
        except (Unavailable, TimeoutError):
            return False
        except Exception as failure:  # noqa: BLE001 - it is blamed again later; its recipient must not stay busy for ever
            self._reports.bug("dead letters", failure)
            return False
        return True

    async def _give_up(self, flight: InFlight, error: Exception) -> None:
        never, message = isinstance(error, Unstorable), flight.delivery.message
        detail = str(error) if never else f"{type(error).__name__} in each attempt"
        await self._refuse(flight.delivery, DeadReason.ATTEMPTS_EXHAUSTED, detail)
        # It may have its place in the order, and readers wait for what is on its way to cold.
        if message is not None:
            if never:
                await self._settler.forget(*message.name)
            else:
                await self._settler.free(message.recipient, message.id, self._copies.announce)
        await self._receipts.finish([flight])

    async def _free_place(self, delivery: Delivery) -> None:
        """Another pipeline may have given what is damaged now a place on its way to cold: readers wait for that."""
        if delivery.reason != DeadReason.DAMAGED or not (delivery.delivered_before and delivery.recipient):
            return
        await self._settler.free(delivery.recipient, delivery.origin, self._copies.announce)

    async def _refuse(self, delivery: Delivery, reason: DeadReason, detail: str) -> None:
        async with asyncio.timeout(self._call_seconds):
            await self._refuser.refuse(delivery, reason, detail)
