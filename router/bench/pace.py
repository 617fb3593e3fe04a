"""When each message is due: as fast as answers come, or at a fixed rate that does not wait for answers."""

from __future__ import annotations

from msgspec import Struct

NANOSECONDS = 1_000_000_000


class Pace(Struct, frozen=True):
    """The bounds of a load (whichever is reached first ends it) and its rate. Times are ns from its start."""

    messages: int | None
    seconds: float | None
    rate: float | None
    """Messages due per second, whether earlier ones were answered or not. ``None``: each sender sends the next message
    when its last one is answered."""

    def due(self, number: int, now: int) -> int | None:
        """When message ``number`` (from 0) is due, which may be in the past; ``None`` if no more are to be sent."""
        at = now if self.rate is None else int(number * NANOSECONDS / self.rate)
        if self.messages is not None and number >= self.messages:
            return None
        if self.seconds is not None and max(at, now) >= self.seconds * NANOSECONDS:
            return None
        return at

    def offered(self, begun: int, elapsed: int) -> int:
        """How many messages were due within ``elapsed``: the ``begun`` ones, and those for which no sender was free."""
        if self.rate is None:
            return begun
        end = elapsed if self.seconds is None else min(elapsed, int(self.seconds * NANOSECONDS))
        due = int(max(0, end - 1) * self.rate / NANOSECONDS) + 1
        return max(begun, due if self.messages is None else min(due, self.messages))
