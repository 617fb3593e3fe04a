"""The loop of the simulation: virtual time, and the life of its processes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.sim.loop import Deadlock, Process, SimLoop


def loop_of(seed: int = 0, *, shuffled: bool = True) -> tuple[SimLoop, list[dict[str, Any]]]:
    failures: list[dict[str, Any]] = []
    loop = SimLoop(random.Random(seed), shuffled=shuffled, failed=failures.append)  # type: ignore[abstract]  # see there
    return loop, failures


async def note(notes: list[str], name: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    notes.append(name)


def test_time_is_virtual() -> None:
    loop, _ = loop_of()

    async def a_day() -> float:
        await asyncio.sleep(86_400)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert loop.run(a_day()) == pytest.approx(86_460)


def test_the_seed_chooses_the_order() -> None:
    def order(seed: int) -> list[str]:
        loop, notes = loop_of(seed)[0], list[str]()

        async def together() -> None:
            await asyncio.gather(*(note(notes, str(number), 1) for number in range(6)))

        loop.run(together())
        return notes

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


def test_a_dead_process_does_nothing_more() -> None:
    loop, failures = loop_of()
    notes: list[str] = []
    process = Process("p")

    async def dies() -> None:
        try:
            await note(notes, "before", 1)
            await note(notes, "after", 2)
        finally:
            notes.append("cleaned up")
            await asyncio.sleep(0)

    async def main() -> None:
        loop.spawn(process, dies())
        await asyncio.sleep(2)
        process.alive = False
        await asyncio.sleep(5)
        assert notes == ["before"]

    loop.run(main())
    loop.close()
    assert not failures


def test_a_paused_process_goes_on_later() -> None:
    loop, _ = loop_of()
    notes: list[str] = []
    process = Process("p")

    async def main() -> None:
        loop.spawn(process, note(notes, "late", 1))
        process.paused = True
        await asyncio.sleep(5)
        assert not notes
        loop.resume(process)
        await asyncio.sleep(2)
        assert notes == ["late"]

    loop.run(main())


def test_a_process_is_stopped_after_the_steps_of_its_fuse() -> None:
    loop, _ = loop_of()
    blown: list[str] = []
    process = Process("p")
    loop.blown = lambda burnt: blown.append(burnt.name)

    async def steps() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def main() -> None:
        process.fuse = 5
        await loop.spawn(process, steps())

    loop.run(main())
    assert blown == ["p"]


def test_a_deadlock_is_told() -> None:
    loop, _ = loop_of()

    async def forever() -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        loop.run(forever())
    loop.close()
