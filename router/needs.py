"""What ``router setup`` makes: each backend names its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from router.data_dir import unusable

THERE = "there"
MISSING = "missing"
NOT_IN_EMULATOR = "not in an emulator"
"""Nothing to make here, but Google's own service needs it."""


class Need(Struct, frozen=True):
    """One thing that a backend needs before it can run."""

    what: str
    where: str
    look: Callable[[], Awaitable[str]]
    """``THERE``, ``MISSING``, ``NOT_IN_EMULATOR``, or in plain words how what is there differs from what is needed."""
    make: Callable[[], Awaitable[None]]
    """Make it where it is missing; harmless where it is there. Raises ``Forbidden`` where this account may not."""
    commands: tuple[str, ...] = ()
    """Shell commands that do the same."""


def directory(path: Path) -> Need:
    """The data directory, which is made by whatever goes into it."""
    return file("data directory", path, lambda: None)


def file(what: str, path: Path, write: Callable[[], object]) -> Need:
    """A file of this machine, which ``write`` makes."""

    async def look() -> str:
        try:
            return THERE if await asyncio.to_thread(path.exists) else MISSING
        except OSError as error:
            raise unusable(path.parent, error) from error

    async def make() -> None:
        await asyncio.to_thread(write)

    return Need(what, str(path), look, make)
