"""Token buckets of many: what each may do at once, and how fast that comes back."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Generic, TypeVar

from router.clock import Clock

K = TypeVar("K", str, bytes)
LEAST_SECONDS = 1e-6
"""A shorter wait is a rounding error."""


class TokenBuckets(Generic[K]):
    """Each key has a bucket that holds ``burst`` and gains ``rate`` a second.

    State: for each key the moment at which its bucket is full again. A key that is not there has a full one, so full
    ones can be forgotten. Of ``most`` others, the one that was used longest ago is forgotten.
    With a rate of 0 there is no limit, and nothing is remembered.
    """

    __slots__ = ("_burst", "_clock", "_full_at", "_most", "_rate")

    def __init__(self, clock: Clock, rate: float, burst: float, most: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._most = most
        self._full_at: OrderedDict[K, float] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many keys have an entry, also where their buckets are full again."""
        return len(self._full_at)

    def __repr__(self) -> str:
        return f"<TokenBuckets: {self.remembered} of at most {self._most}, {self._burst:g} each, {self._rate:g}/s>"

    def missing(self, key: K) -> float:
        """How much the bucket of ``key`` lacks to be full; more than it holds where that is a debt."""
        return max(0.0, self._full_at.get(key, 0.0) - self._clock.monotonic()) * self._rate

    def wait(self, key: K, amount: float) -> float:
        """For how many seconds ``key`` must wait before it may take ``amount``; 0 where it may now.

        More than a bucket holds may be taken when it is full.
        """
        full_at = self._full_at.get(key)
        return 0.0 if full_at is None else self._wait(full_at, amount, self._clock.monotonic())

    def take(self, key: K, amount: float) -> None:
        """Take ``amount``, also where that leaves a debt."""
        if self._rate:
            self._take(key, self._full_at.get(key), amount, self._clock.monotonic())

    def take_now(self, key: K, amount: float) -> bool:
        """Take ``amount`` where that needs no wait; returns whether. With a rate."""
        full_at, now = self._full_at.get(key), self._clock.monotonic()
        if full_at is not None and self._wait(full_at, amount, now):
            return False
        self._take(key, full_at, amount, now)
        return True

    def _wait(self, full_at: float, amount: float, now: float) -> float:
        seconds = full_at - now - max(0.0, self._burst - amount) / self._rate
        return seconds if seconds > LEAST_SECONDS else 0.0

    def _take(self, key: K, full_at: float | None, amount: float, now: float) -> None:
        all_ = self._full_at
        if full_at is None:
            all_[key] = now + amount / self._rate
            self._forget(now)
        else:
            all_[key] = max(now, full_at) + amount / self._rate
            all_.move_to_end(key)

    def _forget(self, now: float) -> None:
        """Two for each key that comes, so that they become fewer where many are full again. Not for each that is used
        again: that is what every request does, and takes 1.5 µs of a core."""
        all_ = self._full_at
        for oldest in tuple(islice(all_, 2)):
            if len(all_) <= self._most and all_[oldest] > now:
                return
            del all_[oldest]

    def give_back(self, key: K, amount: float) -> None:
        """``amount`` that was taken was not needed."""
        if key in self._full_at:
            self._full_at[key] -= amount / self._rate
