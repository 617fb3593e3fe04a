"""One process, another one, and one with large or with doubled queues: over the stores that a test module names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router.backends.pubsub import leases, receiver
from tests.contract.notices import Buses
from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.stores import Durability, Stores

PULL_SECONDS = 1.2
"""A Pull call that finds nothing ends a second before that."""


@pytest.fixture(autouse=True)
def short_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that stops, and a replay that comes to the end, wait for a fifth of a second only."""
    monkeypatch.setattr(receiver, "PULL_SECONDS", PULL_SECONDS)
    monkeypatch.setattr(leases, "PULL_SECONDS", PULL_SECONDS)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def stage(anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
    async with staged(stores, clock) as opened:
        yield opened


@pytest.fixture
async def second(anyio_backend: str, stores: Stores, clock: ManualClock, stage: Stage) -> AsyncIterator[Stage]:
    del stage
    async with staged(stores, clock) as opened:
        yield opened


@pytest.fixture
async def ahead(anyio_backend: str, stores: Stores, clock: ManualClock, stage: Stage) -> AsyncIterator[Stage]:
    """A process whose clock is ahead of the others' by more than a lease."""
    async with staged(stores, ManualClock(clock.time + 70_000_000)) as opened:
        yield opened


@pytest.fixture
async def many(anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
    async with staged(stores, clock, cap=100_000) as opened:
        yield opened


@pytest.fixture
async def doubled(anyio_backend: str, stores: Stores, clock: ManualClock) -> AsyncIterator[Stage]:
    durability: Durability = "write-through"
    async with staged(stores, clock, durability=durability) as opened:
        yield opened


@pytest.fixture
async def buses(stage: Stage, second: Stage) -> Buses:
    return await stage.factory.poke_bus(), await second.factory.poke_bus()
