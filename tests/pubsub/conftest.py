"""The Pub/Sub backend against Google's emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.servers import Server
from tests.support.stores_pubsub import PubSubStores, pubsub_stores


@pytest.fixture
async def stores(
    anyio_backend: str, pubsub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PubSubStores]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)
    async with pubsub_stores(tmp_path) as made:
        yield made


@pytest.fixture
async def stage(anyio_backend: str, stores: PubSubStores) -> AsyncIterator[Stage]:
    async with staged(stores, ManualClock()) as opened:
        yield opened
