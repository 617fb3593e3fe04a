"""The copies in cold that one pipeline has written, or has still to write, until only to tell of them is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.errors import Refused
from router.interfaces import ColdQueue
from router.messages import Delivery, Message, Queued, Routed
from router.timekeeping import Timekeeper


class Unstorable(Exception):
    """The cold queue will never take this message; what it says of it is the message of this error."""


class Copies:
    """Writes to cold, and knows in which place cold has, or may have, each message."""

    def __init__(self, cold: ColdQueue, keeper: Timekeeper, call_seconds: float) -> None:
        """A call that has not ended within ``call_seconds`` counts as failed."""
        self._cold = cold
        self._keeper = keeper
        self._call_seconds = call_seconds
        self._tried: dict[int | str, Queued] = {}
        self._unconfirmed: dict[int | str, Queued] = {}
        """Those of them that cold has refused, or has not answered for."""

    def tried(self, deliveries: Sequence[Delivery]) -> list[Queued]:
        """Those of ``deliveries`` that cold may have."""
        return [self._tried[delivery.receipt] for delivery in deliveries if delivery.receipt in self._tried]

    def place(self, delivery: Delivery, routed: Routed, *, untold: bool) -> Queued:
        """The copy that ``routed`` asks for. Of two, the one in the earlier place stays."""
        tried = self._tried.get(delivery.receipt)
        sequence, queued_at = routed.sequence, routed.queued_at
        if tried is not None and tried.sequence < sequence:
            sequence, queued_at = tried.sequence, tried.queued_at
        queued = Queued(message_of(delivery), sequence, queued_at, attempts=delivery.attempt, untold=untold)
        return self._keeper.dated(queued)

    async def write(self, owed: Sequence[tuple[Delivery, Queued]]) -> set[tuple[str, str]]:
        """Write those that cold is not known to have; returns the names of those that it did not take this time.

        Raises ``Unavailable``, ``TimeoutError`` and ``Unstorable``.
        """
        new = {delivery.receipt: queued for delivery, queued in owed if not self._is_confirmed(delivery, queued)}
        self._tried |= new
        self._unconfirmed |= new
        refused = await self._put(list(new.values()))
        self._confirm([delivery for delivery, _ in owed], refused)
        return refused

    async def write_again(self, deliveries: Sequence[Delivery]) -> set[str]:
        """Write what cold has refused, in the places that it had; returns the recipients of what it refused again.

        To be done before the online store is asked again: where that came back empty, it gives a later place, and what
        was routed behind may be in cold already. Raises like ``write``.
        """
        again = [self._unconfirmed[one.receipt] for one in deliveries if one.receipt in self._unconfirmed]
        refused = await self._put(again)
        self._confirm(deliveries, refused)
        return {queued.message.recipient for queued in again if queued.message.name in refused}

    def forget(self, deliveries: Sequence[Delivery]) -> None:
        """All that is to be done for these is done, but telling of them."""
        for delivery in deliveries:
            self._tried.pop(delivery.receipt, None)
            self._unconfirmed.pop(delivery.receipt, None)

    async def _put(self, messages: Sequence[Queued]) -> set[tuple[str, str]]:
        if not messages:
            return set()
        try:
            async with asyncio.timeout(self._call_seconds):
                return {queued.message.name for queued in await self._cold.put(messages)}
        except Refused as error:
            raise Unstorable(str(error)) from error

    def _is_confirmed(self, delivery: Delivery, queued: Queued) -> bool:
        tried = self._tried.get(delivery.receipt)
        same = tried is not None and (tried.sequence, tried.untold) == (queued.sequence, queued.untold)
        return same and delivery.receipt not in self._unconfirmed

    def _confirm(self, deliveries: Sequence[Delivery], refused: set[tuple[str, str]]) -> None:
        for delivery in deliveries:
            if message_of(delivery).name not in refused:
                self._unconfirmed.pop(delivery.receipt, None)


def message_of(delivery: Delivery) -> Message:
    """The message of a delivery that could be read."""
    assert delivery.message is not None, "only readable deliveries are stored"
    return delivery.message
