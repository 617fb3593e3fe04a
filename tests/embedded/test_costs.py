"""What an operation costs in steps of SQLite's machine: a figure that no noise can change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.factory import Factory
from router.messages import Move
from tests.contract.stage import BOB, PAGE_BYTES, Stage, staged
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
SHALLOW, DEEP = 100, 3000
PAGE = 20
BATCH = 200


async def steps(opened: Factory, work: Callable[[], Awaitable[object]]) -> int:
    """How many steps ``work`` takes, in tens."""
    database = (await opened.embedded())._database
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    for connection in (database._writer, database._reader):
        connection.set_progress_handler(tick, 10)
    await work()
    for connection in (database._writer, database._reader):
        connection.set_progress_handler(None, 10)
    return count


async def read_hot(stage: Stage) -> None:
    assert len((await stage.online.read(BOB, PAGE, PAGE_BYTES)).messages) == PAGE


async def ack_hot(stage: Stage) -> None:
    assert await stage.online.ack(BOB, [f"{number:06}" for number in range(PAGE)]) == []


async def read_cold(stage: Stage) -> None:
    assert len((await stage.cold.read(BOB, PAGE, PAGE_BYTES)).messages) == PAGE


async def ack_cold(stage: Stage) -> None:
    await stage.queue.acknowledge(BOB, [f"{number:06}" for number in range(PAGE)])


async def move_batch(stage: Stage) -> None:
    move = await stage.online.begin_move(BOB, "mover", PAGE, PAGE_BYTES, online_too=True)
    assert isinstance(move, Move)
    assert len(move.messages) == PAGE
    await stage.cold.put(move.messages)
    assert await stage.online.end_move(BOB, "mover", move.messages) == []


async def at_depth(data_dir: Path, depth: int, work: Callable[[Stage], Awaitable[None]]) -> int:
    async with staged(EmbeddedStores(data_dir), ManualClock(), cap=100_000) as stage:
        if work not in (read_cold, ack_cold):
            await stage.connect()
        for start in range(0, depth, BATCH):
            messages = [stage.message(f"{number:06}") for number in range(start, min(start + BATCH, depth))]
            routed = await stage.route(*messages)
            if work in (read_cold, ack_cold):
                for message, result in zip(messages, routed, strict=True):
                    await stage.store(message, result)
        return await steps(stage.factory, lambda: work(stage))


@pytest.mark.parametrize("work", [read_hot, ack_hot, read_cold, ack_cold, move_batch])
async def test_a_page_costs_the_same_at_any_depth(tmp_path: Path, work: Callable[[Stage], Awaitable[None]]) -> None:
    """RACES 27, 34."""
    shallow = await at_depth(tmp_path / "shallow", SHALLOW, work)
    deep = await at_depth(tmp_path / "deep", DEEP, work)
    assert shallow > 0
    assert deep <= 1.2 * shallow
