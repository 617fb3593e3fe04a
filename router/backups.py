"""What a backup says of itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec import Struct

Progress = Callable[[str, str, int | None], AbstractContextManager[Callable[[int], None] | None]]
"""Shows long work: called with its title, its unit and how much there is; yields what is called with how much more is
done, if anybody looks."""


class Backup(Struct, frozen=True):
    """Where a backup comes from, and how much waits in it."""

    router: str
    """The version that made it."""
    schema: int
    """The version of its tables."""
    made_at: int
    """µs since 1970: it has all that was committed before."""
    bytes: int
    ingress: int
    """Messages that wait to be routed."""
    hot: int
    cold: int
    outbox: int
    """Push commands."""
    dead_letters: int
