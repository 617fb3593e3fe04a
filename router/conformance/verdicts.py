"""What the kit says of a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from msgspec import Struct


class Failed(Exception):
    """The client failed a moment; the message says what was seen."""


class Verdict(Struct, frozen=True):
    """What became of one moment."""

    moment: str
    role: str
    """``receive`` or ``send``."""
    story: str
    expected: str
    passed: bool
    seen: str
    """What the client did instead; empty if it passed."""
    seconds: float


class Verdicts(Struct, frozen=True):
    """Of a whole run."""

    passed: int
    failed: int
    moments: list[Verdict]

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Self:
        passed = sum(verdict.passed for verdict in verdicts)
        return cls(passed, len(verdicts) - passed, list(verdicts))
