"""A limited number of lines of a kind in a time, then how many were left out: strangers cannot fill the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINES = 10
SPAN_SECONDS = 60.0

Later = Callable[[float, Callable[[], None]], object]
"""Calls something after a number of seconds."""


def in_loop(seconds: float, call: Callable[[], None]) -> object:
    """``Later`` by the running event loop."""
    return asyncio.get_running_loop().call_later(seconds, call)


class Sampler:
    """Decides which lines are written. A span begins with the first line of its kind.

    Kinds are words of the code, never of a request: there is a counter for each.
    """

    def __init__(self, summarize: Callable[[str, int], None], later: Later = in_loop) -> None:
        """``summarize`` is told a kind and how many of its lines were left out, where any were."""
        self._summarize = summarize
        self._later = later
        self._seen: dict[str, int] = {}

    def passes(self, kind: str) -> bool:
        """Whether a line of this ``kind`` is to be written."""
        seen = self._seen.get(kind, 0)
        self._seen[kind] = seen + 1
        if seen == 0:
            self._later(SPAN_SECONDS, lambda: self._end(kind))
        return seen < LINES

    def finish(self) -> None:
        """End all spans now: the process does."""
        for kind in list(self._seen):
            self._end(kind)

    def _end(self, kind: str) -> None:
        left_out = self._seen.pop(kind, 0) - LINES
        if left_out > 0:
            self._summarize(kind, left_out)
