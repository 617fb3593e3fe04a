"""Who has messages in work, and what waits behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.messages import Delivery

MUCH_MESSAGES = 16
MUCH_BYTES = 64 * 1024
"""Beyond either, what comes to a recipient at once is much: others would feel it."""


class _Line:
    """One recipient's: how many of their messages are in work, and those that wait."""

    __slots__ = ("in_work", "waiting")

    def __init__(self) -> None:
        self.in_work = 0
        self.waiting: list[Delivery] = []


class Recipients:
    """One recipient's messages are in work together or one after another, in their order. Does no I/O.

    A recipient is *busy* from ``begin`` until ``end`` has been told of each of their messages in work; then what has
    waited is in work, if anything has.
    """

    def __init__(self) -> None:
        self._busy: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many are busy."""
        return len(self._busy)

    def begin(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Those whose recipient is free, which are in work from here on; the others wait."""
        begun: list[Delivery] = []
        for delivery in deliveries:
            if (line := self._busy.get(recipient_of(delivery))) is not None:
                line.waiting.append(delivery)
            else:
                begun.append(delivery)
        self._enter(begun)
        return begun

    def end(self, done: Iterable[Delivery]) -> list[Delivery]:
        """These, which were in work, are done. Returns what has waited for those who are free by that: it is in work
        from here on."""
        waited: list[Delivery] = []
        for delivery in done:
            line = self._busy[recipient_of(delivery)]
            line.in_work -= 1
            if not line.in_work:
                waited += self._busy.pop(recipient_of(delivery)).waiting
        self._enter(waited)
        return waited

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """These of one recipient, with whose others they were in work, are the first to wait."""
        line = self._busy[recipient_of(deliveries[0])]
        line.in_work -= len(deliveries)
        line.waiting[:0] = deliveries

    def behind(self, delivery: Delivery) -> Sequence[Delivery]:
        """What waits until ``delivery``, which is in work, is done."""
        return self._busy[recipient_of(delivery)].waiting

    def _enter(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._busy.setdefault(recipient_of(delivery), _Line()).in_work += 1


def recipient_of(delivery: Delivery) -> str:
    """Whose order ``delivery`` belongs to; one that could not be read has an order of its own."""
    return delivery.message.recipient if delivery.message else f"?{delivery.receipt}"


def by_recipient(deliveries: Iterable[Delivery]) -> list[list[Delivery]]:
    """Each recipient's own, in their order."""
    own: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        own.setdefault(recipient_of(delivery), []).append(delivery)
    return list(own.values())


def portions(deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """Those to whom little comes together, and each to whom much comes alone.

    The many who get little share the calls to the stores, and when one's own mail arrives does not tell where the mass
    of what was sent to somebody else went.
    """
    much = [own for own in by_recipient(deliveries) if len(own) > MUCH_MESSAGES or sum(map(size_of, own)) > MUCH_BYTES]
    alone = {recipient_of(own[0]) for own in much}
    little = [delivery for delivery in deliveries if recipient_of(delivery) not in alone]
    return [little, *much] if little else much


def size_of(delivery: Delivery) -> int:
    """The bytes that ``delivery`` takes of memory, but for a few."""
    return len(delivery.message.envelope if delivery.message else delivery.body)
