"""How long to wait before a retry: one formula for all retries."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0


def backoff(
    attempt: int, chance: random.Random, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS
) -> float:
    """Seconds to wait after try number ``attempt`` (from 1): exponential, with full jitter, never zero.

    ``first``: upper bound after the first try; ``longest``: upper bound after any.
    """
    return chance.uniform(first / 10, min(longest, first * 2.0 ** min(attempt - 1, 20)))
