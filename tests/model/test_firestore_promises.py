"""The model of the queues, over Firestore: fewer examples, since each step takes calls to a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.model.test_promises import Promises, keeps
from tests.support.servers import Server
from tests.support.stores import Stores
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores, use_emulator


@pytest.mark.parametrize("kind", [FirestoreColdStores, FirestoreStores])
def test_promises(
    firestore: Server,
    one_loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[FirestoreColdStores],
) -> None:
    class FirestorePromises(Promises):
        def stores(self) -> Stores:
            return kind(Path(self.directory.name))

    use_emulator(firestore.address, monkeypatch)
    FirestorePromises.one_loop = one_loop
    keeps(FirestorePromises, examples=8, steps=30)
