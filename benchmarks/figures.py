"""A figure, its goal, and whether it was met."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Sequence

from msgspec import Struct

from router.bench.latencies import Latencies


class Goal(Struct, frozen=True):
    """A bound, in the unit of its figure."""

    relation: str
    bound: float

    def met_by(self, value: float) -> bool:
        compare = operator.ge if self.relation == AT_LEAST else operator.le
        return bool(compare(value, self.bound))


AT_LEAST = "≥"
AT_MOST = "≤"


def at_least(bound: float) -> Goal:
    return Goal(AT_LEAST, bound)


def at_most(bound: float) -> Goal:
    return Goal(AT_MOST, bound)


class Figure(Struct, frozen=True):
    """One row of the table."""

    scenario: str
    what: str
    values: list[float]
    """Of each round."""
    unit: str
    goal: Goal | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The median of the rounds; it is what the goal is asked of."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.met_by(self.value)


WRITTEN = "whole pages of memory that the system writes to a disk; envelopes of 1,470 bytes, which hold 1 KiB"


class Turn(Struct):
    """One server under one load, once."""

    per_second: float
    cpu_per_1000: float
    """CPU-seconds of the server for 1,000 messages, until it was idle again."""
    latencies: Latencies
    written: float
    """Bytes that the server had the system write to a disk, for each message."""
    load: float
    """The share of a core that the load took meanwhile; near 1, it is the load that is measured."""


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
