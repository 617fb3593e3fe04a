"""The emulator frozen, thawed, killed and started again empty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.backends.pubsub import publisher
from router.errors import ConfigError, Unavailable
from tests.contract.ingress import TURN_SECONDS, take
from tests.contract.pipeline import arrived, running
from tests.contract.stage import EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.servers import Server, pubsub_emulator
from tests.support.servers import running as served
from tests.support.stores_pubsub import PubSubStores, pubsub_stores

pytestmark = pytest.mark.anyio
CLOSING_SECONDS = 25.0
"""What a process has that is told to stop (``server.drain_seconds``)."""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that these tests may mistreat."""
    with served(pubsub_emulator(tmp_path_factory.mktemp("mistreated"))) as server:
        yield server


@pytest.fixture
async def stores(
    anyio_backend: str, emulator: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PubSubStores]:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", emulator.address)
    async with pubsub_stores(tmp_path) as made:
        yield made


@pytest.fixture
def emulator_thawed(emulator: Server) -> Iterator[Server]:
    """However the test ends, the next one finds it running."""
    yield emulator
    emulator.thaw()


async def test_a_publish_outlives_a_short_freeze(stage: Stage, emulator_thawed: Server) -> None:
    """RACES 11."""
    emulator_thawed.freeze()
    publishing_ = asyncio.create_task(stage.producer.publish([stage.message("m1")]))
    done, _ = await asyncio.wait([publishing_], timeout=0.3)
    assert not done
    emulator_thawed.thaw()
    async with asyncio.timeout(TURN_SECONDS):
        await publishing_
    async with running(stage):
        await arrived(stage, "m1")


async def test_a_long_freeze_is_told_and_the_retry_is_one_message(
    stage: Stage, emulator_thawed: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 1, 11: the publish was sent, nobody knows whether it arrived, and the sender repeats it after the thaw."""
    await stage.producer.publish([stage.message("m0")])
    emulator_thawed.freeze()
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "PUBLISH_SECONDS", 0.3)
        with pytest.raises(Unavailable, match="did not confirm"):
            await stage.producer.publish([stage.message("m1", keyed=True)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await stage.producer.probe()
    emulator_thawed.thaw()
    async with running(stage), asyncio.timeout(TURN_SECONDS):
        await stage.producer.publish([stage.message("m1", keyed=True)])
        await stage.producer.publish([stage.message("m2")])
        await arrived(stage, "m0", "m1", "m2")


async def test_closing_ends_though_the_server_is_frozen(stores: PubSubStores, emulator_thawed: Server) -> None:
    """RACES 36: a bounded end, with a publish, a consumer and its mail under way; the mail is there afterwards."""
    async with asyncio.timeout(CLOSING_SECONDS + TURN_SECONDS):
        async with staged(stores, ManualClock()) as stage:
            await stage.producer.publish([stage.message("m1")])
            consumer = await stage.factory.ingress_consumer()
            assert len(await take(consumer, 1)) == 1
            emulator_thawed.freeze()
            sending = asyncio.create_task(stage.producer.publish([stage.message("m2", EVE, keyed=True)]))
            await asyncio.sleep(0)
            frozen = time.monotonic()
        assert time.monotonic() - frozen < CLOSING_SECONDS
        with pytest.raises(Unavailable):
            await sending
    emulator_thawed.thaw()
    async with staged(stores, ManualClock()) as stage, running(stage):
        await stage.producer.publish([stage.message("m2", EVE, keyed=True)])
        await arrived(stage, "m1")
        await arrived(stage, "m2", user=EVE)


async def test_a_server_that_comes_back_empty_says_what_to_do_and_then_works(
    stores: PubSubStores, stage: Stage, emulator: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = await stage.factory.ingress_consumer()
    await stage.producer.publish([stage.message("m0")])
    await consumer.ack(await take(consumer, 1))
    emulator.stop()
    with monkeypatch.context() as patch:
        patch.setattr(publisher, "PUBLISH_SECONDS", 0.3)
        with pytest.raises(Unavailable):
            await stage.producer.publish([stage.message("m1")])
    emulator.start()
    with pytest.raises(Unavailable, match="ingress-topic: it does not exist; run `router setup`"):
        await stage.producer.publish([stage.message("m1")])
    with pytest.raises(Unavailable, match="router setup"):
        await stage.producer.probe()
    async with asyncio.timeout(TURN_SECONDS):
        while True:
            with pytest.raises(Unavailable) as failure:
                await consumer.receive(1)
            if "ingress-sub: it does not exist; run `router setup`" in str(failure.value):
                break
    with pytest.raises(ConfigError, match=r"topic .*ingress-topic, .* missing: create it with `router setup`"):
        async with staged(stores, ManualClock()):
            pass
    await stores.set_up()
    await stage.producer.probe()
    async with running(stage):
        for id_ in ("m1", "m2"):
            await stage.producer.publish([stage.message(id_)])
        await arrived(stage, "m1", "m2")


async def test_a_pipeline_outlives_a_server_that_is_killed(
    stage: Stage, stores: PubSubStores, emulator: Server
) -> None:
    """RACES 11: it goes on by itself, from the stream to the acknowledgements."""
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await arrived(stage, "m1")
        emulator.stop()
        emulator.start()
        await stores.set_up()
        await stage.producer.publish([stage.message("m2")])
        await arrived(stage, "m1", "m2")


async def test_a_missing_subscription_is_said_at_start(stores: PubSubStores, stage: Stage) -> None:
    name = stores.api.subscription("ingress-sub")
    await stores.api.call("delete_subscription", name, subscription=name)
    with pytest.raises(ConfigError, match=r"subscription .*ingress-sub is missing: create it with `router setup`"):
        await stage.factory.ingress_consumer()


async def test_a_subscription_without_ordering_is_refused(stores: PubSubStores, stage: Stage) -> None:
    name, topic = stores.api.subscription("ingress-sub"), stores.api.topic("ingress-topic")
    await stores.api.call("delete_subscription", name, subscription=name)
    await stores.api.create("create_subscription", name, name=name, topic=topic)
    with pytest.raises(ConfigError, match="no message ordering"):
        await stage.factory.ingress_consumer()


async def test_a_subscription_of_another_topic_is_refused(stores: PubSubStores, stage: Stage) -> None:
    name, topic = stores.api.subscription("ingress-sub"), stores.api.topic("push-notifications")
    await stores.api.call("delete_subscription", name, subscription=name)
    await stores.api.create("create_subscription", name, name=name, topic=topic, enable_message_ordering=True)
    with pytest.raises(ConfigError, match=r"reads .*push-notifications instead of .*ingress-topic"):
        await stage.factory.ingress_consumer()
