"""The old stores, real ones, and the router that takes over: embedded, or Pub/Sub, Redis and Firestore."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from router.backends.google.channels import FIRESTORE, PUBSUB
from router.config import Config, Google
from router.go_import.firestore import Collections, GoFirestore
from router.go_import.importer import Imported, Importer
from router.go_import.redis import GoRedis
from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.go_service import Left
from tests.support.servers import Server
from tests.support.stores import EmbeddedStores, Stores
from tests.support.stores_production import production_stores

DATABASE = 9
"""The number of the database of the old Redis."""


class Old:
    """What is left of the old service."""

    def __init__(self, project: str, url: str, firestore: GoFirestore, redis: GoRedis, left: Left) -> None:
        self.project = project
        self.url = url
        self.firestore = firestore
        self.redis = redis
        self.left = left

    def importer(self, stage: Stage, *, dry_run: bool = False) -> Importer:
        producer = None if dry_run else stage.producer
        return Importer(self.firestore, self.redis, producer, stage.factory.config.limits, stage.clock)

    async def run(self, stage: Stage, *, dry_run: bool = False) -> Imported:
        importer = self.importer(stage, dry_run=dry_run)
        return await importer.run(await importer.users())

    async def delete(self, stage: Stage) -> int:
        importer = self.importer(stage)
        return (await importer.delete(await importer.users())).deleted


@pytest.fixture
async def old(
    anyio_backend: str, firestore: Server, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Old]:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)
    project, url = f"old-{uuid4().hex[:12]}", f"redis://{redis.address}/{DATABASE}"
    client = Redis.from_url(url)
    await client.flushdb()
    config = Config(google=Google(project=project))
    async with GoFirestore.open(config, Collections()) as documents, GoRedis.open(url) as lists, client:
        yield Old(project, url, documents, lists, Left(documents, client))


Open = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture(params=["embedded", "production"])
async def new(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path: Path, redis: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Open]:
    """Opens the router that takes over, with the limits that are named."""
    clock = ManualClock()

    @asynccontextmanager
    async def opened(stores: Stores, **limits: float) -> AsyncIterator[Stage]:
        async with staged(stores, clock, cap=10_000, limits=limits) as stage:
            yield stage

    if request.param == "embedded":
        yield lambda **limits: opened(EmbeddedStores(tmp_path), **limits)
        return
    pubsub: Server = request.getfixturevalue("pubsub")
    monkeypatch.setenv(PUBSUB.emulator_variable, pubsub.address)
    async with production_stores(tmp_path, f"redis://{redis.address}") as stores:
        yield lambda **limits: opened(stores, **limits)
