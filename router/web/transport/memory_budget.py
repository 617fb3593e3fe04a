"""How much memory slow clients may hold together."""

from __future__ import annotations

from typing import Protocol

from router.metrics import Cut


class Holder(Protocol):
    """A connection that makes this process keep something."""

    def cut(self, reason: Cut, /) -> None: ...


class MemoryBudget:
    """Counts the bytes of bodies that are not answered and of answers that are not taken; where they are too many,
    the client that has held some for longest is cut off.

    Each is within the bounds of its request; only together they are too much. No mail is lost with them: what was not
    acknowledged is fetched again, and what was not answered is sent again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.total = 0
        """Bytes that are held now."""
        self._held: dict[Holder, int] = {}
        """In the order in which they began to hold something."""

    def hold(self, holder: Holder, size: int) -> None:
        """``holder`` holds ``size`` bytes now, in all."""
        self.total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self.total > self._limit:
            longest = next(iter(self._held))
            self.release(longest)
            longest.cut("crowded-out")

    def release(self, holder: Holder) -> None:
        """``holder`` holds nothing any more; that it did is not needed."""
        self.total -= self._held.pop(holder, 0)
