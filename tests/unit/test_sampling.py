"""Strangers cannot fill the log."""

from __future__ import annotations

from collections.abc import Callable

from router.sampling import LINES, SPAN_SECONDS, Sampler


class Timers:
    """``Later`` that goes off when told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        assert seconds == SPAN_SECONDS
        self.waiting.append(call)

    def pass_by(self) -> None:
        due, self.waiting = self.waiting, []
        for call in due:
            call()


def test_a_flood_is_so_many_lines_and_one_that_says_how_many_more() -> None:
    timers, said = Timers(), list[tuple[str, int]]()
    sampler = Sampler(lambda kind, count: said.append((kind, count)), timers.later)
    assert sum(sampler.passes("expired") for _ in range(1000)) == LINES
    assert sampler.passes("missing"), "each kind has its own"
    assert (said, len(timers.waiting)) == ([], 2)
    timers.pass_by()
    assert said == [("expired", 1000 - LINES)]
    assert sampler.passes("expired"), "a new span"
    timers.pass_by()
    assert len(said) == 1, "nothing was left out"


def test_what_was_left_out_is_told_before_the_end() -> None:
    timers, said = Timers(), list[tuple[str, int]]()
    sampler = Sampler(lambda kind, count: said.append((kind, count)), timers.later)
    for _ in range(LINES + 3):
        sampler.passes("expired")
    sampler.finish()
    timers.pass_by()
    assert said == [("expired", 3)]
