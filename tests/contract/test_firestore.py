"""Firestore keeps the contract: as the cold queue of an embedded online store, and as both queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.contexts import ContextContract, RememberedContract, StepContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.contract.records import RecordContract
from tests.contract.traces import StepTraceContract
from tests.support.servers import Server
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores, use_emulator


@pytest.fixture(autouse=True)
def emulator(firestore: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use_emulator(firestore.address, monkeypatch)


class TestFirestoreColdQueue(QueueContract):
    """Cold mail in Firestore, presence and hot mail in SQLite."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreColdStores:
        return FirestoreColdStores(tmp_path)


class TestFirestoreQueues(QueueContract):
    """All of it in Firestore; pokes go over the embedded bus."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreStores:
        return FirestoreStores(tmp_path)


class TestFirestoreRecords(RecordContract):
    """A document each."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreStores:
        return FirestoreStores(tmp_path)


class TestFirestoreTraces(StepTraceContract):
    """By their recipients only."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreStores:
        return FirestoreStores(tmp_path)


class TestFirestoreContexts(StepContract, ContextContract):
    """A field of each document."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreStores:
        return FirestoreStores(tmp_path)


class TestFirestoreColdContexts(StepContract, RememberedContract):
    """By the embedded online store."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreColdStores:
        return FirestoreColdStores(tmp_path)


class TestFirestorePurge(PurgeContract):
    """Of documents that no index leads to."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreStores:
        return FirestoreStores(tmp_path)
