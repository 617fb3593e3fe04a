"""Firestore keeps the contract: as the cold queue of an embedded online store, and as both queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.google.channels import FIRESTORE
from router.factory import Factory
from router.interfaces import PokeBus
from tests.contract.queues import QueueContract
from tests.support.servers import Server
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores


@pytest.fixture(autouse=True)
def emulator(firestore: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)


class TestFirestoreColdQueue(QueueContract):
    """Cold mail in Firestore, presence and hot mail in SQLite."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreColdStores:
        return FirestoreColdStores(tmp_path)


class TestFirestoreQueues(QueueContract):
    """All of it in Firestore; pokes go over the embedded bus."""

    @pytest.fixture
    def stores(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FirestoreStores:
        async def poke_bus(factory: Factory) -> PokeBus:
            return (await factory.embedded()).poke_bus()

        monkeypatch.setattr(Factory, "poke_bus", poke_bus)
        return FirestoreStores(tmp_path)
