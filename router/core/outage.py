"""Routing while the online store cannot be reached: unknown counts as offline.

Mail goes to cold with a sequence from the clock and is announced, so that nobody waits for the store. The ingress
keeps what was routed so until the store has been told of it: a pipeline that dies meanwhile leaves nothing that the
store will never know, and a recipient's next message is not routed elsewhere before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from router.messages import Delivery, Message, Outcome, Queued, Routed

Owed = tuple[Delivery, Queued]
"""A delivery that the ingress still holds, and what was written to cold; neither holds the envelope any more."""


class Outage:
    """Whether there is one, and what the online store is still to be told. Does no I/O."""

    def __init__(self) -> None:
        self.lasts = False
        self._known: dict[int | str, Routed] = {}
        self._placed: dict[int | str, Routed] = {}
        self._owed: deque[Owed] = deque()
        self._highest = 0

    def __len__(self) -> int:
        """How many messages the store is still to be told of."""
        return len(self._owed)

    def saw(self, deliveries: Sequence[Delivery], routed: Sequence[Routed]) -> list[Routed]:
        """What the store gave out last: sequences of an outage continue from there, whatever the clocks say.

        A message that has its sequence keeps it, when an outage comes before its cold write has worked, and also where
        the store has forgotten it and gives another: what was routed behind it may be in cold already.
        """
        kept = [self._kept(delivery, result) for delivery, result in zip(deliveries, routed, strict=True)]
        for delivery, result in zip(deliveries, kept, strict=True):
            self._highest = max(self._highest, result.sequence)
            if result.sequence:
                self._known[delivery.receipt] = Routed(Outcome.COLD, result.sequence, result.queued_at)
        return kept

    def _kept(self, delivery: Delivery, result: Routed) -> Routed:
        known = self._known.get(delivery.receipt)
        earlier = known is not None and result.outcome is Outcome.COLD and known.sequence < result.sequence
        return known if known is not None and earlier else result

    def place(self, deliveries: Sequence[Delivery], now: int) -> list[Routed]:
        """What becomes of ``deliveries`` without the store.

        Their place stays the same when their cold write fails: the write may have worked nevertheless, and the store,
        if it routed them after all, must hear of a copy in cold. Until ``owe``, ``forget`` or ``withdraw`` the outage
        does not end.
        """
        for delivery in deliveries:
            if (known := self._known.get(delivery.receipt)) is not None and not _ephemeral(delivery):
                self._placed.setdefault(delivery.receipt, known)
        return [self._placed.get(delivery.receipt) or self._place(delivery, now) for delivery in deliveries]

    def _place(self, delivery: Delivery, now: int) -> Routed:
        # An ephemeral one takes a place too: the store has given it one, if it routed all after all and was not heard.
        self._highest = max(self._highest + 1, now)
        if _ephemeral(delivery):
            return Routed(Outcome.DROPPED_OFFLINE)
        placed = self._placed[delivery.receipt] = Routed(Outcome.COLD, self._highest, now)
        return placed

    def forget(self, deliveries: Sequence[Delivery]) -> None:
        """These are done with."""
        for delivery in deliveries:
            self._placed.pop(delivery.receipt, None)
            self._known.pop(delivery.receipt, None)

    def withdraw(self, deliveries: Sequence[Delivery]) -> None:
        """Cold can never take the first of these, and has not been asked to take those behind it: the outage does not
        wait for them."""
        for delivery in deliveries:
            self._placed.pop(delivery.receipt, None)

    def owe(self, written: Sequence[Owed]) -> None:
        """These are in cold and announced; the store is to be told before the ingress is."""
        self.forget([delivery for delivery, _ in written])
        self._owed.extend((_slim(delivery), _bare(queued)) for delivery, queued in written)

    def next(self, limit: int) -> list[Owed]:
        """The oldest that are owed; they stay owed until ``told``."""
        return [self._owed[index] for index in range(min(limit, len(self._owed)))]

    def told(self, count: int) -> None:
        """The store and the ingress know the oldest ``count``."""
        for _ in range(count):
            self._owed.popleft()

    def end(self) -> None:
        """The store can be reached: the outage ends if nothing is owed and nobody is about to owe anything."""
        self.lasts = bool(self._owed) or bool(self._placed)

    def untold(self) -> list[Delivery]:
        """All deliveries whose messages the store does not know, to be handed back."""
        return [delivery for delivery, _ in self._owed]


def _ephemeral(delivery: Delivery) -> bool:
    return delivery.message is not None and delivery.message.ephemeral


def _slim(delivery: Delivery) -> Delivery:
    message = delivery.message
    return msgspec.structs.replace(delivery, message=None if message is None else _without_envelope(message))


def _bare(queued: Queued) -> Queued:
    return msgspec.structs.replace(queued, message=_without_envelope(queued.message), left_out=queued.size)


def _without_envelope(message: Message) -> Message:
    return msgspec.structs.replace(message, envelope=b"")
