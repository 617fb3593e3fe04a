"""Two worlds, over every backend: all states of a victim where a world is cheap, elsewhere those that differ most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest

from router.backends.google.channels import FIRESTORE, PUBSUB
from tests.contract.worlds import Fresh, WorldsContract
from tests.support.servers import Server
from tests.support.stores import EmbeddedStores, Stores
from tests.support.stores_google import google_stores
from tests.support.stores_production import production_stores
from tests.support.stores_redis import RedisStores
from tests.support.stores_simulated import simulated_google_stores, simulated_redis_stores
from tests.worlds.people import Full, FullOfBytes, Reader, Silent, Spent, Victim

FEW = (Victim, Full, FullOfBytes, Spent, Silent, Reader)


@pytest.fixture
def emulators(firestore: Server, pubsub: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)
    monkeypatch.setenv(PUBSUB.emulator_variable, pubsub.address)


class TestEmbeddedWorlds(WorldsContract):
    """In one file."""

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Fresh:
        return lambda name: nullcontext(EmbeddedStores(tmp_path / name))


class TestRedisWorlds(WorldsContract):
    """Presence, hot mail and pokes in Redis."""

    victims = FEW

    @pytest.fixture
    def fresh(self, tmp_path: Path, redis: Server) -> Fresh:
        return lambda name: nullcontext(RedisStores(tmp_path / name, f"redis://{redis.address}"))


@pytest.mark.usefixtures("emulators")
class TestGoogleWorlds(WorldsContract):
    """Pub/Sub and Firestore alone."""

    victims = (Victim, Silent, Reader)

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Fresh:
        return lambda name: google_stores(tmp_path / name)


@pytest.mark.usefixtures("emulators")
class TestProductionWorlds(WorldsContract):
    """Redis, Firestore and Pub/Sub together."""

    victims = (Victim, Full, Spent)

    @pytest.fixture
    def fresh(self, tmp_path: Path, redis: Server) -> Fresh:
        return lambda name: production_stores(tmp_path / name, f"redis://{redis.address}")


class TestSimulatedRedisWorlds(WorldsContract):
    """As ``TestRedisWorlds``, where the simulation runs."""

    victims = FEW

    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Fresh:
        @asynccontextmanager
        async def make(name: str) -> AsyncIterator[Stores]:
            with simulated_redis_stores(tmp_path / name) as made:
                yield made

        return make


class TestSimulatedGoogleWorlds(WorldsContract):
    """As ``TestGoogleWorlds``, in all states."""

    @pytest.fixture
    def fresh(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
        return lambda name: simulated_google_stores(tmp_path / name, monkeypatch)
