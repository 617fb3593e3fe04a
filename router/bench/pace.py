"""When which message is due: as fast as answers come, or at a rate that heeds no answer."""

from __future__ import annotations

from msgspec import Struct

NANOSECONDS = 1_000_000_000


class Pace(Struct, frozen=True):
    """The bounds of a load, whichever comes first, and its rate. Moments are ns from its start."""

    messages: int | None
    seconds: float | None
    rate: float | None
    """Messages a second that are due, whether or not earlier ones were answered; ``None``: each sender sends the next
    message when the last is answered."""

    def due(self, number: int, now: int) -> int | None:
        """When message ``number`` (from 0) is due; may be past. ``None`` where no more are to be sent."""
        at = now if self.rate is None else int(number * NANOSECONDS / self.rate)
        if self.messages is not None and number >= self.messages:
            return None
        if self.seconds is not None and max(at, now) >= self.seconds * NANOSECONDS:
            return None
        return at

    def offered(self, begun: int, elapsed: int) -> int:
        """How many were due in ``elapsed``, of which ``begun`` were begun; more, where no sender was free."""
        if self.rate is None:
            return begun
        end = elapsed if self.seconds is None else min(elapsed, int(self.seconds * NANOSECONDS))
        due = int(max(0, end - 1) * self.rate / NANOSECONDS) + 1
        return max(begun, due if self.messages is None else min(due, self.messages))
