"""What the other ends of the topics get: push commands in both forms, dead letters, pokes."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from router.backends.pubsub.backend import PubSubBackend
from router.backends.pubsub.bodies import ATTRIBUTE_BYTES, MESSAGE_BYTES, dead_letter, ordering_key
from router.backends.pubsub.pokes import node_subscription
from router.backends.pubsub.wire import PubsubMessage
from router.config import Config, Online, Push
from router.messages import DeadLetter, DeadReason, Lane
from router.metrics import Metrics
from tests.contract.notices import TURN_SECONDS, Ear
from tests.contract.stage import BOB, EVE, Stage
from tests.support.clock import ManualClock
from tests.support.stores_pubsub import PubSubStores

pytestmark = pytest.mark.anyio


async def commands(stores: PubSubStores, config: Config, stage: Stage) -> Sequence[Any]:
    async with PubSubBackend(config, ManualClock(), random.Random(1)) as backend:
        messages = [stage.message("m1", EVE, lane=Lane.EXPRESS), stage.message("m2")]
        await backend.push_notifier().publish(messages)
    return sorted(await stores.commands(), key=lambda command: str(command.attributes["messageId"]))


async def test_the_ingress_carries_the_envelope_and_no_more_than_it_must(stores: PubSubStores, stage: Stage) -> None:
    await stage.producer.publish(stage.message("m1", EVE, lane=Lane.EXPRESS))
    await stage.producer.publish(stage.message("m2", keyed=True))
    received = [each.message for each in await stores.api.pull(stores.api.subscription("ingress-sub"), 10, 10.0)]
    first, second = sorted(received, key=lambda message: str(message.attributes["id"]))
    assert json.loads(first.data) == {"recipientId": EVE, "priority": 5}
    at = str(stage.clock.now())
    assert dict(first.attributes) == {"id": "m1", "accepted_at": at}
    assert dict(second.attributes) == {"id": "m2", "accepted_at": at, "keyed": "true"}
    assert (first.ordering_key, second.ordering_key) == (ordering_key(EVE, 4), ordering_key(BOB, 4))


async def test_a_command_holds_the_recipient_and_the_sealed_envelope(stores: PubSubStores, stage: Stage) -> None:
    express, normal = await commands(stores, stores.config(), stage)
    assert json.loads(express.data) == {"recipientId": EVE, "envelope": {"recipientId": EVE, "priority": 5}}
    assert dict(express.attributes) == {"messageId": "m1", "recipientId": EVE, "priority": "5"}
    assert express.ordering_key == EVE
    assert dict(normal.attributes) == {"messageId": "m2", "recipientId": BOB, "priority": "0"}


async def test_a_notification_request_holds_nothing_of_the_envelope(stores: PubSubStores, stage: Stage) -> None:
    config = stores.config().model_copy(update={"push": Push(kind="pubsub", format="notification-request")})
    express, _ = await commands(stores, config, stage)
    request = json.loads(express.data)
    assert set(request) == {"ID", "Payload"}
    assert request["ID"] == "m1"
    payload = json.loads(base64.b64decode(request["Payload"], validate=True))
    assert set(payload) == {"recipientId", "content", "dataPayload"}
    assert payload["recipientId"] == EVE
    assert set(payload["content"]) == {"title", "body", "sound"}
    assert payload["dataPayload"] == {"message_id": "m1"}
    assert dict(express.attributes) == {"messageId": "m1", "recipientId": EVE, "priority": "5"}
    assert express.ordering_key == EVE


async def test_a_dead_letter_says_all_there_is_to_say(stores: PubSubStores, stage: Stage) -> None:
    letters = await stage.factory.dead_letters()
    await letters.publish([DeadLetter("m1", EVE, DeadReason.QUEUE_FULL, "d" * 2000, b"the body", 3, 17)])
    (letter,) = await stores.dead_letters()
    assert letter.data == b"the body"
    assert dict(letter.attributes) == {
        "id": "m1",
        "recipient": EVE,
        "reason": "queue-full",
        "detail": "d" * ATTRIBUTE_BYTES,
        "attempts": "3",
        "at": "17",
    }


async def test_a_dead_letter_always_fits() -> None:
    letter = dead_letter(DeadLetter("m1", "", DeadReason.UNDECODABLE, "ä" * 2000, b"x" * 10_000_000, 1, 0))
    assert len(letter.data) == MESSAGE_BYTES
    assert len(letter.attributes["detail"].encode()) <= ATTRIBUTE_BYTES
    assert "recipient" not in letter.attributes
    assert letter.ByteSize() < 10_000_000


async def test_a_recipient_has_one_ordering_key() -> None:
    keys = {ordering_key(f"urn:sm:user:u{number}", 32) for number in range(1000)}
    assert len(keys) == 32
    assert ordering_key(BOB, 32) == ordering_key(BOB, 32) == "shard-14"
    assert ordering_key(BOB, 0) == BOB


@pytest.fixture
async def backend(anyio_backend: str, stores: PubSubStores) -> AsyncIterator[PubSubBackend]:
    config = stores.config().model_copy(update={"online": Online(kind="firestore")})
    await stores.set_up(config)
    async with PubSubBackend(config, ManualClock(), random.Random(1)) as opened:
        yield opened


async def test_a_node_has_a_subscription_as_long_as_it_listens(stores: PubSubStores, backend: PubSubBackend) -> None:
    bus = backend.poke_bus(Metrics())
    name = stores.api.subscription(node_subscription("router-pokes", "n1"))
    async with Ear(bus, "n1") as ear:
        await ear.hears(bus, BOB)
        made = await stores.api.get("subscription", name)
        assert made.filter == 'attributes.node = "n1"'
        assert made.expiration_policy.ttl.seconds == 86_400, "what a node that dies leaves expires"
    assert await stores.api.get("subscription", name) is None


async def test_what_is_no_poke_makes_nobody_deaf(stores: PubSubStores, backend: PubSubBackend) -> None:
    """Others may publish to the topic: it is dropped and counted, and the same subscription goes on."""
    metrics = Metrics()
    bus = backend.poke_bus(metrics)
    with capture_logs() as logged:
        async with Ear(bus, "n1") as ear:
            await ear.hears(bus, BOB)
            for data in (b"payload", b'["payload\xff"]', b'["payload", 1]', b"{}"):
                await stores.api.publish(
                    stores.api.topic("router-pokes"), [PubsubMessage(data=data, attributes={"node": "n1"})]
                )
            await ear.hears(bus, EVE)
            assert ear.heard == {BOB, EVE}
            unreadable = partial(metrics.registry.get_sample_value, "router_pokes_total", {"kind": "unreadable"})
            async with asyncio.timeout(TURN_SECONDS):
                while unreadable() != 4:  # noqa: ASYNC110 - nothing is set by what is dropped
                    await asyncio.sleep(0.01)
    assert [entry["event"] for entry in logged] == ["what came as pokes is none"] * 4
    assert "payload" not in str(logged)


async def test_a_bug_in_reading_ends_the_listening(backend: PubSubBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """And with it the service; it does not leave a node that is deaf."""
    bus = backend.poke_bus(Metrics())
    monkeypatch.setattr(bus, "_offer", lambda *_: 1 / 0)
    listening = asyncio.ensure_future(anext(bus.listen("n1")))
    async with asyncio.timeout(TURN_SECONDS):
        while not listening.done():
            await bus.publish([("n1", BOB)])
            await asyncio.sleep(0.01)
    with pytest.raises(ZeroDivisionError):
        await listening


async def test_a_subscription_that_vanishes_is_made_again(stores: PubSubStores, backend: PubSubBackend) -> None:
    """RACES 18."""
    bus = backend.poke_bus(Metrics())
    name = stores.api.subscription(node_subscription("router-pokes", "n1"))
    async with Ear(bus, "n1") as ear:
        await ear.hears(bus, BOB)
        await stores.api.call("delete_subscription", name, subscription=name)
        await ear.hears(bus, EVE)
