"""The Redis backend with a server that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.backends.redis.client import Client
from router.backends.redis.scripts import Command
from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.servers import Server, redis_server, running
from tests.support.stores_redis import RedisStores

TIMEOUT_SECONDS = 1.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Server]:
    """A server of one test's own, which it may stop, freeze and start again; synced at every write."""
    with running(redis_server(tmp_path / "redis", "--appendfsync", "always")) as server:
        yield server


@pytest.fixture
def stores(tmp_path: Path, redis: Server) -> RedisStores:
    return RedisStores(tmp_path / "data", f"redis://{redis.address}")


@pytest.fixture
def own_stores(tmp_path: Path, own_redis: Server) -> RedisStores:
    return RedisStores(tmp_path / "data", f"redis://{own_redis.address}", timeout_seconds=TIMEOUT_SECONDS)


@pytest.fixture
async def stage(anyio_backend: str, stores: RedisStores, clock: ManualClock) -> AsyncIterator[Stage]:
    """On the Redis that all tests share."""
    del anyio_backend
    async with staged(stores, clock) as opened:
        yield opened


@pytest.fixture
async def many(anyio_backend: str, stores: RedisStores, clock: ManualClock) -> AsyncIterator[Stage]:
    """With room for long queues."""
    del anyio_backend
    async with staged(stores, clock, cap=100_000) as opened:
        yield opened


@pytest.fixture
async def fragile(anyio_backend: str, own_stores: RedisStores, clock: ManualClock) -> AsyncIterator[Stage]:
    """On the test's own Redis."""
    del anyio_backend
    async with staged(own_stores, clock) as opened:
        yield opened


def commands(stage: Stage, patch: pytest.MonkeyPatch) -> list[Sequence[Command]]:
    """What ``stage`` sends to Redis from here on: a batch for each round trip."""
    client: Client = stage.online.state.client  # type: ignore[attr-defined]
    send, sent = client._send, list[Sequence[Command]]()

    async def counted(batch: Sequence[Command]) -> list[Any]:
        sent.append(batch)
        return await send(batch)

    patch.setattr(client, "_send", counted)
    return sent
