"""Redis, Firestore and Pub/Sub together keep the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.backends.firestore.backend import FirestoreBackend
from router.backends.google.channels import FIRESTORE, PUBSUB
from router.messages import Outcome
from tests.contract.damage import DamageContract
from tests.contract.ingress import IngressContract
from tests.contract.notices import PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract
from tests.contract.queues import QueueContract
from tests.contract.stage import BOB, Stage
from tests.contract.traces import StepTraceContract
from tests.support.backends import opened
from tests.support.servers import Server
from tests.support.stores_production import ProductionStores, production_stores


@pytest.fixture
async def stores(
    anyio_backend: str,
    redis: Server,
    firestore: Server,
    pubsub: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[ProductionStores]:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)
    monkeypatch.setenv(PUBSUB.emulator_variable, pubsub.address)
    async with production_stores(tmp_path, f"redis://{redis.address}") as made:
        yield made


class TestProductionQueues(QueueContract):
    """Presence and hot mail in Redis, cold mail in Firestore."""

    async def test_a_user_with_nothing_cold_costs_firestore_nothing(self, stage: Stage) -> None:
        """Routed, fetched and acknowledged: from the first fetch on, which found cold empty, it is not called."""
        await stage.connect()
        assert await stage.ids() == []
        statistics = (await opened(stage.factory, FirestoreBackend)).client.statistics
        before = repr(statistics)
        for id_ in ("m1", "m2"):
            assert await stage.go(id_) is Outcome.HOT
            assert await stage.ids() == [id_]
            await stage.queue.acknowledge(BOB, [id_])
            assert await stage.ids() == []
        assert repr(statistics) == before
        await stage.migrator.migrate(BOB, online_too=True)
        assert repr(statistics) == before


class TestProductionIngress(IngressContract):
    """From Pub/Sub."""


class TestProductionPipeline(PipelineContract):
    """The whole way."""


class TestProductionPokes(PokeContract):
    """Over Redis."""


class TestProductionPush(PushContract):
    """Push commands and dead letters, to Pub/Sub."""


class TestProductionDamage(DamageContract):
    """In Redis and Firestore."""


class TestProductionTraces(StepTraceContract):
    """Pub/Sub cannot be asked, and Firestore for the cold queue only with a recipient, whom Redis finds."""

    async def test_what_cannot_be_asked_is_named(self, stage: Stage) -> None:
        await stage.go("m1")
        trace = await (await stage.factory.message_tracer()).trace("m1", BOB, lambda _: None)
        assert {unsaid.place.role for unsaid in trace.unasked} == {"ingress", "push", "dead-letters"}


class TestProductionPurge(PurgeContract):
    """Of three stores."""
