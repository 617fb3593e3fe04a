"""Google alone keeps the contract: Pub/Sub and Firestore together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.backends.google.channels import FIRESTORE, PUBSUB
from tests.contract.damage import DamageContract
from tests.contract.notices import PokeContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.support.servers import Server
from tests.support.stores_google import GoogleStores, google_stores


@pytest.fixture
async def stores(
    anyio_backend: str, firestore: Server, pubsub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[GoogleStores]:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)
    monkeypatch.setenv(PUBSUB.emulator_variable, pubsub.address)
    async with google_stores(tmp_path) as made:
        yield made


class TestGoogleQueues(QueueContract):
    """Presence, hot and cold mail in Firestore, pokes over Pub/Sub."""


class TestGooglePipeline(PipelineContract):
    """The whole way."""


class TestGooglePokes(PokeContract):
    """From the factory, as a service gets them."""


class TestGoogleDamage(DamageContract):
    """In Firestore; dead letters go to Pub/Sub."""


class TestGooglePurge(PurgeContract):
    """Dead letters are in Pub/Sub."""
