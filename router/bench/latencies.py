"""Latencies and their percentiles."""

from __future__ import annotations

import math
from array import array


class Latencies:
    """A collection of latencies, in seconds."""

    def __init__(self) -> None:
        self._spans = array("d")

    def add(self, seconds: float) -> None:
        self._spans.append(seconds)

    def clear(self) -> None:
        """Forget all that was measured until now."""
        del self._spans[:]

    def percentiles(self, *percents: float) -> list[float]:
        """These percentiles by nearest rank, in seconds; at least one latency must be there."""
        ordered = sorted(self._spans)
        return [ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] for percent in percents]

    def percentile_ms(self, percent: float) -> float:
        """One percentile by nearest rank, in ms."""
        return 1000 * self.percentiles(percent)[0]

    @property
    def p50_ms(self) -> float:
        return self.percentile_ms(50)

    @property
    def p99_ms(self) -> float:
        return self.percentile_ms(99)

    @property
    def max_ms(self) -> float:
        return self.percentile_ms(100)

    def __len__(self) -> int:
        return len(self._spans)
