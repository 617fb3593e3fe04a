"""What a process may believe of the time, where mail is dated by it, or deleted.

Any clock may be wrong: ahead by a month for three seconds, behind until somebody sets it. There are up to four that can
be compared: this machine's, its monotonic one, that of the store, and the latest time that a store without a clock was
told. What is written is dated by the latest that can be believed, and what is deleted is judged by the earliest.
"""

from __future__ import annotations

from msgspec.structs import replace

from router import logs
from router.clock import MICROSECONDS, Clock
from router.messages import Queued

LOG = logs.logger(__name__)
STEP_SECONDS = 60.0
"""A clock that is further from the monotonic one than at the look before was set."""
SURE_SECONDS = 3600.0
"""A clock that has agreed with the monotonic one for this time may delete what has become due."""
LONG_SURE_SECONDS = 86_400.0
"""A clock that has agreed with it for this time may also delete what is long overdue."""
OVERDUE_SECONDS = 86_400.0
"""What is overdue by more was due long ago, and somebody would have deleted it, or the clock was set."""
EARLY_SECONDS = 86_400.0
"""Mail may come to cold so long after it was routed without its date being doubted."""
LATE_SECONDS = 3600.0
"""And with a date that is so far ahead."""


def may_delete(overdue_seconds: float, agreed_seconds: float) -> bool:
    """Whether retention may delete a message that is ``overdue_seconds`` past its time, by a clock that has gone with
    the monotonic one for ``agreed_seconds``.

    While sweepers run, mail is deleted within minutes of its time. So where much is overdue by days, either nobody has
    swept for days, or the clock was set ahead, and a step would delete what is not due: that takes a day to believe.
    """
    return agreed_seconds >= (LONG_SURE_SECONDS if overdue_seconds > OVERDUE_SECONDS else SURE_SECONDS)


class Timekeeper:
    """Compares the clocks of one process whenever it is asked. Its state: how far from the monotonic clock the others
    are, and were."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offsets = [(clock.monotonic(), self._offset)]
        """Since when (monotonic) this machine's clock was so far (µs) from the monotonic one. Those before the last are
        kept for an hour, and for a day where no store has a clock that could say which of them is right."""
        self._store: int | None = None
        """How far the store's is, as it was measured last."""
        self._sure: int | None = None
        """The furthest that was sure."""
        self._least: int | None = None
        """What was known at the start: it cannot be earlier, and how much later it is nobody knows."""

    @property
    def _elapsed(self) -> int:
        return int(self._clock.monotonic() * MICROSECONDS)

    @property
    def _offset(self) -> int:
        return self._clock.now() - self._elapsed

    def measured(self, ahead_seconds: float) -> None:
        """This machine's clock is so far ahead of the store's."""
        self._store = self._offset - int(ahead_seconds * MICROSECONDS)

    def not_before(self, at: int) -> None:
        """It was later than this (µs since 1970) once already; 0 where nothing is known. By how much nobody knows: this
        machine's clock counts as set since then."""
        self._least = at - self._elapsed
        if at:
            self._offsets.insert(0, (self._clock.monotonic(), self._least))

    def look(self) -> None:
        """Compare the clocks; there is a line in the log where this machine's was set."""
        now, offset = self._clock.monotonic(), self._offset
        since, before = self._offsets[-1]
        if abs(offset - before) > STEP_SECONDS * MICROSECONDS:
            self._offsets.append((now, offset))
            LOG.warning(
                "this machine's clock was set: for an hour nothing is deleted because of its age; where the store has "
                "no clock, for a day nothing that is due by the new time only",
                seconds=round((offset - before) / MICROSECONDS),
            )
        else:
            self._offsets[-1] = (since, offset)
        kept_seconds = LONG_SURE_SECONDS if self._store is None else SURE_SECONDS
        while len(self._offsets) > 1 and now - self._offsets[1][0] >= kept_seconds:
            del self._offsets[0]
        if self.is_long_sure:
            # What was known before, and is later, came from a clock that was ahead.
            self._sure, self._least = offset, None
        elif self._agreed_seconds >= SURE_SECONDS:
            self._sure = offset if self._sure is None else max(self._sure, offset)

    @property
    def _agreed_seconds(self) -> float:
        return self._clock.monotonic() - self._offsets[-1][0]

    @property
    def is_long_sure(self) -> bool:
        """Whether this machine's clock has gone evenly for a day."""
        return self._agreed_seconds >= LONG_SURE_SECONDS

    @property
    def agreed_seconds(self) -> float:
        """For how long this machine's clock and the monotonic one have gone alike."""
        self.look()
        return self._agreed_seconds

    def deleting_at(self) -> int:
        """The earliest time (µs since 1970) that it may be; 0 where there is no second look yet to go by: the store's
        clock, or an hour of the monotonic one."""
        self.look()
        if self._store is None and self._agreed_seconds < SURE_SECONDS:
            return 0
        known = [offset for _, offset in self._offsets] + ([] if self._store is None else [self._store])
        return min(known) + self._elapsed

    def dating_at(self) -> int:
        """The latest time (µs since 1970) that it may be, as far as a second look says so."""
        self.look()
        known = [offset for offset in (self._store, self._sure) if offset is not None]
        known = known or [offset for _, offset in self._offsets]
        return max(known if self._least is None else [*known, self._least]) + self._elapsed

    def leaving_at(self) -> int:
        """When what leaves the queues now does so (µs since 1970), for all that goes by it: dated by a clock that was
        behind, the record of it would be dropped as soon as that was put right."""
        return max(self._clock.now(), self.dating_at())

    def dated(self, queued: Queued) -> Queued:
        """``queued``, which is about to be written to cold, with a date that can be believed: by one that a clock gave
        which was a month behind, it would be deleted as soon as that was put right."""
        at = self.dating_at()
        if at - EARLY_SECONDS * MICROSECONDS <= queued.queued_at <= at + LATE_SECONDS * MICROSECONDS:
            return queued
        return replace(queued, queued_at=at)
