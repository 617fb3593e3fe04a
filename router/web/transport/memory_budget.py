"""How much memory slow clients may hold together."""

from __future__ import annotations

from typing import Protocol

from router.metrics import Cut


class Holder(Protocol):
    """A connection for which this process keeps something."""

    def cut(self, reason: Cut, /) -> None: ...


class MemoryBudget:
    """Counts the bytes of unanswered bodies and unread answers. If there are too many, it cuts off the client that has
    held some for longest.

    Each client keeps the limits of its requests; only together they hold too much. No mail is lost: clients fetch again
    what they have not acknowledged, and send again what was not answered.
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
        """``holder`` holds nothing any more; not an error if it never did."""
        self.total -= self._held.pop(holder, 0)
