"""How long to wait before trying again: one formula for everything that is repeated."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0


def backoff(
    attempt: int, chance: random.Random, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS
) -> float:
    """Seconds to wait after try number ``attempt`` (from 1): exponential, with full jitter, never zero.

    ``first``: the most after the first try; ``longest``: the most after any.
    """
    return chance.uniform(first / 10, min(longest, first * 2.0 ** min(attempt - 1, 20)))
