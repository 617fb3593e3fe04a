"""What ``router setup`` makes: each backend names its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

THERE = "there"
MISSING = "missing"


class Need(Struct, frozen=True):
    """One thing that a backend needs before it can run."""

    what: str
    where: str
    look: Callable[[], Awaitable[str]]
    """``THERE``, ``MISSING``, or in plain words how what is there differs from what is needed."""
    make: Callable[[], Awaitable[None]]
    """Make it where it is missing; harmless where it is there."""
    commands: tuple[str, ...] = ()
    """Shell commands that do the same."""
