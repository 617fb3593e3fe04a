"""Firestore keeps the contract: as the cold queue of an embedded online store."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.google.channels import FIRESTORE
from tests.contract.queues import QueueContract
from tests.support.servers import Server
from tests.support.stores_firestore import FirestoreColdStores


@pytest.fixture(autouse=True)
def emulator(firestore: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)


class TestFirestoreColdQueue(QueueContract):
    """Cold mail in Firestore, presence and hot mail in SQLite."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> FirestoreColdStores:
        return FirestoreColdStores(tmp_path)
