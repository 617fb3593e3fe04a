"""Components over the Firestore emulator, on a clock in hand: ``stage`` is one process, ``second`` another one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.servers import Server
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores, use_emulator

CAP = 10_000


@pytest.fixture
def emulator(firestore: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    use_emulator(firestore.address, monkeypatch)
    return firestore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stores(tmp_path: Path) -> FirestoreStores:
    return FirestoreStores(tmp_path)


@pytest.fixture
async def stage(
    anyio_backend: str, emulator: Server, stores: FirestoreStores, clock: ManualClock
) -> AsyncIterator[Stage]:
    """Presence, hot and cold mail in Firestore."""
    async with staged(stores, clock, cap=CAP) as opened:
        yield opened


@pytest.fixture
async def second(
    anyio_backend: str, emulator: Server, stores: FirestoreStores, clock: ManualClock, stage: Stage
) -> AsyncIterator[Stage]:
    del stage
    async with staged(stores, clock, cap=CAP) as opened:
        yield opened


@pytest.fixture
async def beside(anyio_backend: str, emulator: Server, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Stage]:
    """Cold mail in Firestore, the rest embedded."""
    async with staged(FirestoreColdStores(tmp_path), clock, cap=CAP) as opened:
        yield opened
