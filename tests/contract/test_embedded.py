"""The embedded backend keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.config import Config, Embedded, Limits
from router.factory import Factory
from tests.contract.queues import QueueContract
from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def factory(data_dir: Path, clock: ManualClock, cap: int = 20) -> Factory:
    return Factory(Config(embedded=Embedded(data_dir=data_dir), limits=Limits(queue_messages=cap)), clock=clock)


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stage]:
    async with staged(factory(tmp_path, clock), clock) as opened:
        yield opened


@pytest.fixture
async def second(anyio_backend: str, tmp_path: Path, clock: ManualClock, stage: Stage) -> AsyncIterator[Stage]:
    del stage
    async with staged(factory(tmp_path, clock), clock) as opened:
        yield opened


@pytest.fixture
async def many(anyio_backend: str, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stage]:
    async with staged(factory(tmp_path / "many", clock, cap=100_000), clock) as opened:
        yield opened


class TestEmbeddedQueues(QueueContract):
    """Over one SQLite file, and over two connections to it."""
