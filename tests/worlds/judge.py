"""The judge: two worlds in which only a victim's state differs must look the same to a stranger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.support.stores import Stores
from tests.worlds import program
from tests.worlds.people import Seen, Stranger, Victim
from tests.worlds.service import serving

Program = Callable[[Stranger], Awaitable[None]]


async def view(stores: Stores, victim: type[Victim], run: Program = program.run) -> list[Seen]:
    """All that the stranger sees in a fresh world, in order."""
    async with serving(stores) as running:
        other = victim(running)
        await other.prepare()
        running.begin("the stranger comes", 5.0)
        stranger = Stranger(running, other.react)
        try:
            await run(stranger)
        finally:
            await stranger.leave()
            await other.leave()
        return stranger.seen


def difference(one: list[Seen], other: list[Seen]) -> str:
    """The first thing in which two views differ, in words; empty where they are equal."""
    for first, second in zip(one, other, strict=False):
        if first != second:
            return f"{first.step}: {first.what} or {second.what}"
    return "" if len(one) == len(other) else f"{len(one)} or {len(other)} things were seen"
