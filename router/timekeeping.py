"""What time it is, for dating and deleting mail, although any clock may be wrong.

A clock may be ahead by a month for three seconds, or behind until somebody sets it. So a process compares up to four
clocks: this machine's, its monotonic one, the store's, and, for a store without a clock, the latest time that was
written to it. It dates mail by the latest time that it can believe, and deletes mail by the earliest.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from router import logs
from router.clock import MICROSECONDS, Clock
from router.messages import Queued

LOG = logs.logger(__name__)
STEP_SECONDS = 60.0
"""If the distance to the monotonic clock changes by more than this between two looks, somebody has set the clock."""
SURE_SECONDS = 3600.0
"""A clock that has agreed with the monotonic one for this long may delete mail that has become due."""
LONG_SURE_SECONDS = 86_400.0
"""A clock that has agreed with it for this long may also delete mail that is long overdue."""
OVERDUE_SECONDS = 86_400.0
"""Mail that is overdue by more than this is suspicious: a sweeper should have deleted it, unless the clock was set."""
EARLY_SECONDS = 86_400.0
"""The date of mail that goes to cold is believed if it is at most this much in the past."""
LATE_SECONDS = 3600.0
"""The date of mail that goes to cold is believed if it is at most this much in the future."""


def may_delete(overdue_seconds: float, agreed_seconds: float) -> bool:
    """Whether retention may delete a message that is ``overdue_seconds`` past its time, by a clock that has agreed with
    the monotonic one for ``agreed_seconds``.

    Sweepers delete mail within minutes of its time. If mail is overdue by days, either no sweeper ran for days, or the
    clock was set ahead and the mail is not due at all. A clock that runs evenly for a day is believed.
    """
    return agreed_seconds >= (LONG_SURE_SECONDS if overdue_seconds > OVERDUE_SECONDS else SURE_SECONDS)


class Timekeeper:
    """Compares the clocks of one process whenever it is asked. Its state: how far the other clocks are, and were, from
    the monotonic one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offsets = [(clock.monotonic(), self._offset)]
        """(since when, by the monotonic clock; how far (µs) this machine's clock was from it). Earlier entries are kept
        for an hour; for a day if no store has a clock, which could say which entry is right."""
        self._store: int | None = None
        """How far (µs) the store's clock is, by the last comparison."""
        self._sure: int | None = None
        """The furthest distance (µs) that lasted for ``SURE_SECONDS``."""
        self._least: int | None = None
        """Distance (µs) of the time known at the start: it is that late or later."""

    @property
    def _elapsed(self) -> int:
        return int(self._clock.monotonic() * MICROSECONDS)

    @property
    def _offset(self) -> int:
        return self._clock.now() - self._elapsed

    def measured(self, ahead_seconds: float) -> None:
        """Record that this machine's clock is ``ahead_seconds`` ahead of the store's."""
        self._store = self._offset - int(ahead_seconds * MICROSECONDS)

    def not_before(self, at: int) -> None:
        """Record that it is at least ``at`` (µs since 1970), which was stored earlier; 0 if nothing was. How much later
        it is, nobody knows, so this machine's clock counts as set since then."""
        self._least = at - self._elapsed
        if at:
            self._offsets.insert(0, (self._clock.monotonic(), self._least))

    def look(self) -> None:
        """Compare the clocks; log if this machine's was set."""
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
            # A later time that was known before came from a clock that was ahead.
            self._sure, self._least = offset, None
        elif self._agreed_seconds >= SURE_SECONDS:
            self._sure = offset if self._sure is None else max(self._sure, offset)

    @property
    def _agreed_seconds(self) -> float:
        return self._clock.monotonic() - self._offsets[-1][0]

    @property
    def is_long_sure(self) -> bool:
        """Whether this machine's clock has run evenly for a day."""
        return self._agreed_seconds >= LONG_SURE_SECONDS

    @property
    def agreed_seconds(self) -> float:
        """How long this machine's clock has agreed with the monotonic one."""
        self.look()
        return self._agreed_seconds

    def deleting_at(self) -> int:
        """The earliest time (µs since 1970) that it may be. 0 while nothing confirms this machine's clock: neither a
        store's clock nor an hour in which it agreed with the monotonic one."""
        self.look()
        if self._store is None and self._agreed_seconds < SURE_SECONDS:
            return 0
        known = [offset for _, offset in self._offsets] + ([] if self._store is None else [self._store])
        return min(known) + self._elapsed

    def dating_at(self) -> int:
        """The latest time (µs since 1970) that can be believed: by the store's clock or a sure one, if there is any."""
        self.look()
        known = [offset for offset in (self._store, self._sure) if offset is not None]
        known = known or [offset for _, offset in self._offsets]
        return max(known if self._least is None else [*known, self._least]) + self._elapsed

    def leaving_at(self) -> int:
        """The time (µs since 1970) to record for a message that leaves the queues now. Dated by a clock that is behind,
        its tombstone would be deleted as soon as somebody corrects the clock."""
        return max(self._clock.now(), self.dating_at())

    def dated(self, queued: Queued) -> Queued:
        """``queued``, which is about to be written to cold, with a date that can be believed. Dated by a clock that was
        a month behind, it would be deleted as soon as somebody corrects the clock."""
        return _dated(queued, self.dating_at())

    def all_dated(self, messages: Iterable[Queued]) -> list[Queued]:
        """``dated`` of each of ``messages``."""
        at = self.dating_at()
        return [_dated(queued, at) for queued in messages]


def _dated(queued: Queued, at: int) -> Queued:
    if at - EARLY_SECONDS * MICROSECONDS <= queued.queued_at <= at + LATE_SECONDS * MICROSECONDS:
        return queued
    return replace(queued, queued_at=at)
