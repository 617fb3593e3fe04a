"""The simulated servers keep the contract with the real backends over them, as the real servers do: what holds in the
simulation holds there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.config import Online
from tests.contract.contexts import ContextContract, RememberedContract, StepContract
from tests.contract.ingress import IngressContract
from tests.contract.notices import Buses, PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.contract.test_pubsub import opened
from tests.support.stores_firestore import FirestoreColdStores, FirestoreStores
from tests.support.stores_google import GoogleStores
from tests.support.stores_pubsub import PubSubStores
from tests.support.stores_redis import RedisStores
from tests.support.stores_simulated import (
    simulated_firestore,
    simulated_google_stores,
    simulated_pubsub_stores,
    simulated_redis_stores,
)


class OverRedis:
    """A simulated Redis is the online store, beside an embedded cold queue."""

    @pytest.fixture
    def stores(self, tmp_path: Path) -> Iterator[RedisStores]:
        with simulated_redis_stores(tmp_path) as made:
            yield made


class TestSimulatedRedisQueues(OverRedis, QueueContract):
    """As ``TestRedisQueues``."""


class TestSimulatedRedisPokes(OverRedis, PokeContract):
    """As ``TestRedisPokes``."""


class TestSimulatedRedisPipeline(OverRedis, PipelineContract):
    """As ``TestRedisPipeline``."""


class TestSimulatedRedisContexts(OverRedis, StepContract, RememberedContract):
    """As ``TestRedisContexts``."""


class OverPubSub:
    """A simulated Pub/Sub is in front of embedded queues."""

    @pytest.fixture(params=["stream", "pulls", "a key each"])
    async def stores(
        self, request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[PubSubStores]:
        async with simulated_pubsub_stores(tmp_path, monkeypatch) as made:
            made.pulls = 3 if request.param == "pulls" else 0
            made.shards = 0 if request.param == "a key each" else made.shards
            yield made


class TestSimulatedPubSubIngress(OverPubSub, IngressContract):
    """As ``TestPubSubIngress``."""


class TestSimulatedPubSubPush(OverPubSub, PushContract):
    """As ``TestPubSubPush``."""


class TestSimulatedPubSubPipeline(OverPubSub, PipelineContract):
    """As ``TestPubSubPipeline``."""


class TestSimulatedPubSubPokes(OverPubSub, PokeContract):
    """As ``TestPubSubPokes``."""

    @pytest.fixture
    async def buses(self, stores: PubSubStores) -> AsyncIterator[Buses]:
        config = stores.config().model_copy(update={"online": Online(kind="firestore")})
        await stores.set_up(config)
        async with opened(config) as one, opened(config) as two:
            yield one.poke_bus(), two.poke_bus()


class TestSimulatedFirestoreColdQueue(QueueContract):
    """As ``TestFirestoreColdQueue``."""

    @pytest.fixture
    def stores(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirestoreColdStores]:
        with simulated_firestore(monkeypatch):
            yield FirestoreColdStores(tmp_path)


class TestSimulatedFirestoreQueues(QueueContract):
    """As ``TestFirestoreQueues``."""

    @pytest.fixture
    def stores(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirestoreStores]:
        with simulated_firestore(monkeypatch):
            yield FirestoreStores(tmp_path)


class TestSimulatedFirestoreContexts(StepContract, ContextContract):
    """As ``TestFirestoreContexts``."""

    @pytest.fixture
    def stores(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FirestoreStores]:
        with simulated_firestore(monkeypatch):
            yield FirestoreStores(tmp_path)


class OverGoogle:
    """Simulated are both Pub/Sub and Firestore."""

    @pytest.fixture
    async def stores(
        self, anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[GoogleStores]:
        async with simulated_google_stores(tmp_path, monkeypatch) as made:
            yield made


class TestSimulatedGoogleQueues(OverGoogle, QueueContract):
    """As ``TestGoogleQueues``."""


class TestSimulatedGooglePipeline(OverGoogle, PipelineContract):
    """As ``TestGooglePipeline``."""


class TestSimulatedGooglePokes(OverGoogle, PokeContract):
    """As ``TestGooglePokes``."""


class TestSimulatedRedisPurge(OverRedis, PurgeContract):
    """As ``TestRedisPurge``."""
