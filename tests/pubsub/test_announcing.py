"""What the other ends of the topics get: push commands in both forms, dead letters."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest

from router.backends.pubsub.backend import PubSubBackend
from router.backends.pubsub.bodies import ATTRIBUTE_BYTES, MESSAGE_BYTES, dead_letter, ordering_key
from router.checksum import checksum
from router.config import Config, Push
from router.dead_reasons import DeadReason
from router.messages import DeadLetter, Lane
from tests.contract.stage import BOB, EVE, Stage
from tests.support.backends import tools
from tests.support.clock import ManualClock
from tests.support.stores_pubsub import PubSubStores

pytestmark = pytest.mark.anyio


async def commands(stores: PubSubStores, config: Config, stage: Stage) -> Sequence[Any]:
    async with PubSubBackend(config, tools(ManualClock())) as backend:
        messages = [stage.message("m1", EVE, lane=Lane.EXPRESS), stage.message("m2")]
        await backend.push_notifier().publish(messages)
    return sorted(await stores.commands(), key=lambda command: str(command.attributes["messageId"]))


async def test_the_ingress_carries_the_envelope_and_no_more_than_it_must(stores: PubSubStores, stage: Stage) -> None:
    await stage.producer.publish([stage.message("m1", EVE, lane=Lane.EXPRESS)])
    await stage.producer.publish([stage.message("m2", keyed=True)])
    received = [each.message for each in await stores.api.pull(stores.api.subscription("ingress-sub"), 10, 10.0)]
    first, second = sorted(received, key=lambda message: str(message.attributes["id"]))
    assert json.loads(first.data) == {"recipientId": EVE, "priority": 5}
    at = str(stage.clock.now())
    sums = [str(checksum(id_, user, message.data)) for id_, user, message in (("m1", EVE, first), ("m2", BOB, second))]
    assert dict(first.attributes) == {"id": "m1", "accepted_at": at, "router_checksum": sums[0]}
    assert dict(second.attributes) == {"id": "m2", "accepted_at": at, "keyed": "true", "router_checksum": sums[1]}
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
