"""How long to wait before trying again."""

from __future__ import annotations

import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0


def backoff(attempt: int, chance: random.Random) -> float:
    """Seconds to wait after try number ``attempt`` (from 1): exponential, with full jitter, never zero."""
    ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt - 1, 20))
    return FIRST_SECONDS / 5 + chance.random() * ceiling
