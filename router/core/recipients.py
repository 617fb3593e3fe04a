"""Who has messages in work, and what waits behind them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.core.deliveries import InFlight, bytes_of

MUCH_MESSAGES = 16
MUCH_BYTES = 64 * 1024
"""Beyond either, what comes to a recipient at once is much: others would feel it."""


class _Line:
    """One recipient's: how many of their messages are in work, and those that wait."""

    __slots__ = ("in_work", "waiting")

    def __init__(self) -> None:
        self.in_work = 0
        self.waiting: list[InFlight] = []


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

    def begin(self, flights: Iterable[InFlight]) -> list[InFlight]:
        """Those whose recipient is free, which are in work from here on; the others wait."""
        begun: list[InFlight] = []
        for flight in flights:
            if (line := self._busy.get(flight.recipient)) is not None:
                line.waiting.append(flight)
            else:
                begun.append(flight)
        self._enter(begun)
        return begun

    def end(self, done: Iterable[InFlight]) -> list[InFlight]:
        """These, which were in work, are done. Returns what has waited for those who are free by that: it is in work
        from here on."""
        waited: list[InFlight] = []
        for flight in done:
            line = self._busy[flight.recipient]
            line.in_work -= 1
            if not line.in_work:
                waited += self._busy.pop(flight.recipient).waiting
        self._enter(waited)
        return waited

    def put_back(self, flights: Sequence[InFlight]) -> None:
        """These of one recipient, with whose others they were in work, are the first to wait."""
        line = self._busy[flights[0].recipient]
        line.in_work -= len(flights)
        line.waiting[:0] = flights

    def behind(self, flight: InFlight) -> Sequence[InFlight]:
        """What waits until ``flight``, which is in work, is done."""
        return self._busy[flight.recipient].waiting

    def _enter(self, flights: Iterable[InFlight]) -> None:
        for flight in flights:
            self._busy.setdefault(flight.recipient, _Line()).in_work += 1


def by_recipient(flights: Iterable[InFlight]) -> list[list[InFlight]]:
    """Each recipient's own, in their order."""
    own: dict[str, list[InFlight]] = {}
    for flight in flights:
        own.setdefault(flight.recipient, []).append(flight)
    return list(own.values())


def portions(flights: Sequence[InFlight]) -> list[list[InFlight]]:
    """Those to whom little comes together, and each to whom much comes alone.

    The many who get little share the calls to the stores, and when one's own mail arrives does not tell where the mass
    of what was sent to somebody else went.
    """
    much = [own for own in by_recipient(flights) if len(own) > MUCH_MESSAGES or bytes_of(own) > MUCH_BYTES]
    alone = {own[0].recipient for own in much}
    little = [flight for flight in flights if flight.recipient not in alone]
    return [little, *much] if little else much
