"""The model of the queues, over Firestore: fewer examples, since each step takes calls to a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.model.test_promises import Promises
from tests.support.servers import Server
from tests.support.stores import Stores
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores, use_emulator

EXAMPLES = settings(max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def emulator(firestore: Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_emulator(firestore.address, patch)
        yield


class ColdPromises(Promises):
    def stores(self) -> Stores:
        return FirestoreColdStores(Path(self.directory.name))


class FirestorePromises(Promises):
    def stores(self) -> Stores:
        return FirestoreStores(Path(self.directory.name))


ColdPromises.TestCase.settings = EXAMPLES
FirestorePromises.TestCase.settings = EXAMPLES
TestColdPromises = ColdPromises.TestCase
TestFirestorePromises = FirestorePromises.TestCase
