"""RACES 34: a page costs what it holds, however much stands behind it. Counted in steps of SQLite's machine."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.core.migrator import BATCH_BYTES
from router.messages import Delivery, Move, Outcome, Queued
from tests.contract.stage import BOB, PAGE_BYTES, Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
SHALLOW, DEEP = 100, 20_000
PAGE = 50
FACTOR = 1.3
"""A tree that holds 200 times as much is a level or two higher; a scan would cost 200 times as much."""


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Stage]:
    del anyio_backend
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=100_000, in_line=True) as opened:
        yield opened


class Steps:
    """Counts the virtual machine's instructions on all connections of a stage."""

    def __init__(self) -> None:
        self.count = 0

    def _step(self) -> int:
        self.count += 1
        return 0

    async def of(self, stage: Stage, work: Callable[[Stage], Awaitable[None]]) -> int:
        """What ``work`` costs."""
        database = (await opened(stage.factory, EmbeddedBackend))._database
        before = self.count
        connections: tuple[sqlite3.Connection, ...] = (database._reader, database._writer)
        for connection in connections:
            connection.set_progress_handler(self._step, 1)
        await work(stage)
        for connection in connections:
            connection.set_progress_handler(None, 1)
        return self.count - before


async def fetch_and_acknowledge(stage: Stage) -> None:
    ids = await stage.ids(limit=PAGE)
    await stage.queue.acknowledge(BOB, ids)
    assert len(ids) == PAGE


async def move_a_batch(stage: Stage) -> None:
    move = await stage.online.begin_move(BOB, "mover", PAGE, PAGE_BYTES, online_too=True)
    assert isinstance(move, Move)
    assert len(move.messages) + len(move.moved) == PAGE
    if move.messages:
        await stage.cold.put(move.messages)
        assert await stage.online.end_move(BOB, "mover", move.messages) == []


async def fill(stage: Stage, first: int, last: int) -> None:
    """Queue messages for Bob, hot or cold as he is on- or offline."""
    for start in range(first, last, 1000):
        messages = [stage.message(f"{number:06}") for number in range(start, min(start + 1000, last))]
        routed = await stage.online.route([Delivery(message, 0, 1) for message in messages])
        owed = [
            Queued(message, result.sequence, result.queued_at)
            for message, result in zip(messages, routed, strict=True)
            if result.outcome is Outcome.COLD
        ]
        await stage.cold.put(owed)
        await stage.online.settle(owed)


@pytest.mark.parametrize("tier", ["hot", "cold", "both"])
async def test_a_page_costs_the_same_at_any_depth(stage: Stage, tier: str) -> None:
    """``both``: the head is in cold, and what came since he connected is hot."""
    if tier == "hot":
        await stage.connect()
    await fill(stage, 0, SHALLOW)
    if tier == "both":
        await stage.connect()
        await fill(stage, SHALLOW, 2 * SHALLOW)
    steps = Steps()
    shallow = await steps.of(stage, fetch_and_acknowledge)
    await fill(stage, DEEP, 2 * DEEP)
    deep = await steps.of(stage, fetch_and_acknowledge)
    assert shallow > PAGE, "the steps are counted"
    assert deep <= FACTOR * shallow


@pytest.mark.usefixtures("piped")
async def test_moving_a_batch_by_steps_costs_the_same_at_any_depth(stage: Stage) -> None:
    """RACES 27: where others may come between."""
    await moving_costs_the_same(stage)


async def test_moving_a_batch_costs_the_same_at_any_depth(stage: Stage) -> None:
    """RACES 27: a batch is paid for, not the queue behind it."""
    await moving_costs_the_same(stage)


async def moving_costs_the_same(stage: Stage) -> None:
    await stage.connect()
    await fill(stage, 0, 2 * SHALLOW)
    steps = Steps()
    shallow = await steps.of(stage, move_a_batch)
    await fill(stage, DEEP, 2 * DEEP)
    deep = await steps.of(stage, move_a_batch)
    assert shallow > PAGE, "the steps are counted"
    assert deep <= FACTOR * shallow


async def test_migrating_costs_the_same_memory(stage: Stage) -> None:
    """RACES 27: batch by batch, however many there are."""
    await stage.connect()
    peaks = []
    for first, depth in ((0, 1000), (DEEP, DEEP // 2)):
        await fill(stage, first, first + depth)
        tracemalloc.start()
        assert (await stage.migrator.migrate(BOB, online_too=True)).moved == depth
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < FACTOR * peaks[0]


@pytest.mark.usefixtures("piped")
async def test_large_mail_moves_in_batches_of_bounded_bytes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 27."""
    put, sizes = stage.cold.put, list[int]()

    async def measure(messages: Sequence[Queued]) -> list[Queued]:
        sizes.append(sum(len(queued.message.envelope) for queued in messages))
        return await put(messages)

    monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: measure(messages))
    await stage.connect()
    for number in range(30):
        await stage.route(stage.message(f"m{number:02}", size=BATCH_BYTES // 8))
    assert (await stage.migrator.migrate(BOB, online_too=True)).moved == 30
    assert (sum(sizes), max(sizes)) == (30 * BATCH_BYTES // 8, BATCH_BYTES)


async def test_sweeping_a_deep_queue_costs_the_same(stage: Stage) -> None:
    """What runs each second beside the clients must not count through their queues either."""
    await stage.connect()
    await fill(stage, 0, SHALLOW)
    database = (await opened(stage.factory, EmbeddedBackend))._database
    steps = Steps()
    counts = []
    for depth in (SHALLOW, DEEP):
        await fill(stage, DEEP, DEEP + depth - SHALLOW)
        before = steps.count
        database._reader.set_progress_handler(steps._step, 1)
        assert [user.user for user in await stage.online.hot_users("", 10)] == [BOB]
        await stage.online.unannounced(BOB, stage.clock.now(), PAGE)
        await stage.online.purge(PAGE, stage.clock.now())
        database._reader.set_progress_handler(None, 1)
        counts.append(steps.count - before)
    assert counts[0] > PAGE
    assert counts[1] <= FACTOR * counts[0]
