"""Pub/Sub keeps the contract as ingress, for push commands, dead letters and pokes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.backends.pubsub.backend import PubSubBackend
from router.config import Config, Online
from tests.contract.ingress import IngressContract
from tests.contract.notices import Buses, PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.support.backends import tools
from tests.support.clock import ManualClock
from tests.support.servers import Server
from tests.support.stores_pubsub import PubSubStores, pubsub_stores


def opened(config: Config) -> PubSubBackend:
    return PubSubBackend(config, tools(ManualClock()))


@pytest.fixture(params=["stream", "pulls", "a key each"])
async def stores(
    request: pytest.FixtureRequest,
    anyio_backend: str,
    pubsub: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[PubSubStores]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)
    async with pubsub_stores(tmp_path) as made:
        made.pulls = 3 if request.param == "pulls" else 0
        made.shards = 0 if request.param == "a key each" else made.shards
        yield made


class TestPubSubIngress(IngressContract):
    """One subscription with ordering."""


class TestPubSubPush(PushContract):
    """A topic each."""


class TestPubSubPipeline(PipelineContract):
    """Pub/Sub in front, embedded stores behind."""


class TestPubSubPokes(PokeContract):
    """One topic, and a subscription for each node."""

    @pytest.fixture
    async def buses(self, stores: PubSubStores) -> AsyncIterator[Buses]:
        config = stores.config().model_copy(update={"online": Online(kind="firestore")})
        await stores.set_up(config)
        async with opened(config) as one, opened(config) as two:
            yield one.poke_bus(), two.poke_bus()
