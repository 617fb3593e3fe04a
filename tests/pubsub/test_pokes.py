"""Pokes between nodes: what each node makes, what is left by those that die, and nodes that are gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.backends.pubsub import poke_outbox, poke_topics, pokes
from router.backends.pubsub.backend import PubSubBackend
from router.backends.pubsub.wire import PubsubMessage
from router.config import Online
from router.metrics import Metrics
from tests.contract.notices import TURN_SECONDS, Ear
from tests.contract.stage import BOB, EVE
from tests.support.backends import tools
from tests.support.clock import ManualClock
from tests.support.stores_pubsub import PubSubStores

pytestmark = pytest.mark.anyio
NAME = "router-pokes-n1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def backend(
    anyio_backend: str, stores: PubSubStores, clock: ManualClock, metrics: Metrics
) -> AsyncIterator[PubSubBackend]:
    config = stores.config().model_copy(update={"online": Online(kind="firestore")})
    await stores.set_up(config)
    async with PubSubBackend(config, tools(clock, metrics)) as opened:
        yield opened


def counted(metrics: Metrics, kind: str) -> Callable[[], float | None]:
    return partial(metrics.registry.get_sample_value, "router_pokes_total", {"kind": kind})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TURN_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing is set by a call to Pub/Sub
            await asyncio.sleep(0.01)


async def test_a_node_has_a_topic_as_long_as_it_listens(stores: PubSubStores, backend: PubSubBackend) -> None:
    """And nothing else of a poke is delivered, and paid for, than what its node reads."""
    bus = backend.poke_bus()
    topic, subscription = stores.api.topic(NAME), stores.api.subscription(NAME)
    async with Ear(bus, "n1") as ear, Ear(bus, "n2"):
        await ear.hears(bus, BOB)
        made = await stores.api.get("subscription", subscription)
        assert (made.topic, made.filter) == (topic, "")
        assert made.expiration_policy.ttl.seconds == 86_400, "what a node that dies leaves expires"
        readers = await stores.api.call("list_topic_subscriptions", topic, topic=topic)
        assert list(readers.subscriptions) == [subscription]
    assert await stores.api.get("subscription", subscription) is None
    assert await stores.api.get("topic", topic) is None


async def test_what_is_no_poke_makes_nobody_deaf(
    stores: PubSubStores, backend: PubSubBackend, metrics: Metrics
) -> None:
    """Others may publish to the topic: it is dropped and counted, and the same subscription goes on."""
    bus = backend.poke_bus()
    with capture_logs() as logged:
        async with Ear(bus, "n1") as ear:
            await ear.hears(bus, BOB)
            for data in (b"payload", b'["payload\xff"]', b'["payload", 1]', b"{}"):
                await stores.api.publish(stores.api.topic(NAME), [PubsubMessage(data=data)])
            await ear.hears(bus, EVE)
            assert ear.heard == {BOB, EVE}
            await until(lambda: counted(metrics, "unreadable")() == 4)
    assert [entry["event"] for entry in logged] == ["dropped a message on the poke topic that is not a poke"] * 4
    assert "payload" not in str(logged)


async def test_a_bug_in_reading_ends_the_listening(backend: PubSubBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with it the service; it does not leave a node that is deaf."""
    bus = backend.poke_bus()
    monkeypatch.setattr(bus, "_offer", lambda *_: 1 / 0)
    listening = asyncio.ensure_future(anext(bus.listen("n1")))
    async with asyncio.timeout(TURN_SECONDS):
        while not listening.done():
            await bus.publish([("n1", BOB)])
            await asyncio.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        await listening


@pytest.mark.parametrize("kind", ["subscription", "topic"])
async def test_what_vanishes_is_made_again(
    kind: str, stores: PubSubStores, backend: PubSubBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 18: a subscription whose topic is deleted stays, can be read, and hears nothing any more."""
    monkeypatch.setattr(pokes, "CHECK_SECONDS", 0.1)
    bus = backend.poke_bus()
    name = getattr(stores.api, kind)(NAME)
    async with Ear(bus, "n1") as ear:
        await ear.hears(bus, BOB)
        fields: dict[str, Any] = {kind: name}
        await stores.api.call(f"delete_{kind}", name, **fields)
        await ear.hears(bus, EVE)


async def test_pokes_for_a_node_that_is_gone_are_dropped_and_counted(
    backend: PubSubBackend, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In silence, and without a trace in memory; those for others go on beside them."""
    monkeypatch.setattr(poke_outbox, "CALLS", 2)
    bus, gone = backend.poke_bus(), counted(metrics, "gone")
    outbox = backend._outbox
    assert outbox is not None
    async with Ear(bus, "n1") as ear:
        await ear.hears(bus, BOB)
        await until(lambda: not outbox._tasks)
        before = gone() or 0.0
        with capture_logs() as logged:
            await bus.publish([(f"gone-{number}", f"urn:sm:user:u{number % 7}") for number in range(50)])
            await ear.hears(bus, EVE)
            await until(lambda: gone() == before + 50)
            await until(lambda: not outbox._tasks)
    assert logged == []
    assert not outbox._waiting
    assert not outbox._calls


async def test_a_topic_that_does_not_answer_holds_up_its_own_node_only(
    backend: PubSubBackend, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = backend.poke_bus()
    publish, never = backend._api.publish, asyncio.Event()
    asked = 0

    async def stuck(topic: str, messages: Any) -> None:
        nonlocal asked
        if topic.endswith("-stuck"):
            asked += 1
            await never.wait()
        await publish(topic, messages)

    monkeypatch.setattr(backend._api, "publish", stuck)
    monkeypatch.setattr(poke_outbox, "WAITING_USERS", 1000)
    async with Ear(bus, "n1") as ear:
        for number in range(poke_outbox.NODE_CALLS):
            await bus.publish([("stuck", f"first-{number}")])
            await until(lambda: asked == number + 1)  # noqa: B023 - at once
        await bus.publish([("stuck", f"later-{number}") for number in range(1500)])
        await ear.hears(bus, BOB)
        assert asked == poke_outbox.NODE_CALLS
        assert counted(metrics, "left")() == 500


async def test_what_the_dead_left_is_deleted_by_those_that_begin(
    stores: PubSubStores, backend: PubSubBackend, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic never expires; its subscription does, when nobody has read it for a day. Here it is deleted for that."""
    monkeypatch.setattr(poke_topics, "PAGE", 2)
    api, topics = stores.api, poke_topics.PokeTopics(stores.api, "router-pokes", clock, random.Random(1))
    for node in ("dead", "dead-2", "alive", "young"):
        if node == "young":
            clock.advance(3 * 86_400)
        await topics.make(node)
        if node != "alive":
            await api.call("delete_subscription", topics.subscription(node), subscription=topics.subscription(node))
    for other in (api.topic("router-pokes-of-others"), api.topic("another")):
        await api.create("create_topic", other, name=other)
    bus = backend.poke_bus()
    listening = asyncio.ensure_future(anext(bus.listen("n1")))
    async with asyncio.timeout(TURN_SECONDS):
        for dead in ("dead", "dead-2"):
            while await api.get("topic", topics.topic(dead)) is not None:  # noqa: ASYNC110 - a service sets no event
                await asyncio.sleep(0.01)
    listening.cancel()
    await asyncio.wait([listening])
    for name in ("router-pokes-alive", "router-pokes-young", "router-pokes-of-others", "another"):
        assert await api.get("topic", api.topic(name)) is not None, name


async def test_one_node_looks_at_some_topics_only(
    stores: PubSubStores, backend: PubSubBackend, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When hundreds of nodes begin at once, the quota of administrative calls is kept."""
    monkeypatch.setattr(poke_topics, "LOOKED_AT", 2)
    topics = poke_topics.PokeTopics(stores.api, "router-pokes", clock, random.Random(1))
    for number in range(5):
        await topics.make(f"old-{number}")
    clock.advance(3 * 86_400)
    looked: list[str] = []
    call = stores.api.call

    async def noted(method: str, resource: str, **fields: Any) -> Any:
        looked.extend([resource] if method == "list_topic_subscriptions" else [])
        return await call(method, resource, **fields)

    monkeypatch.setattr(stores.api, "call", noted)
    await topics.collect()
    assert len(set(looked)) == 2
