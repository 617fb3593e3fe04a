"""What every ingress must do, by producer and consumer. A backend's test subclasses this unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from router.interfaces import IngressConsumer
from router.messages import Delivery, Lane, Message
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.stores import Stores

pytestmark = pytest.mark.anyio
TURN_SECONDS = 60.0
"""What has not come by then does not come; an ingress may wait for a lease to run out, and Pub/Sub's emulator for one
more with each Pull call of a consumer that has ended."""


async def take(consumer: IngressConsumer, count: int) -> list[Delivery]:
    """The next ``count`` deliveries."""
    taken: list[Delivery] = []
    async with asyncio.timeout(TURN_SECONDS):
        while len(taken) < count:
            taken += await consumer.receive(count - len(taken))
    return taken


def ids(deliveries: Sequence[Delivery], user: str | None = None) -> list[str]:
    messages = [delivery.message for delivery in deliveries if delivery.message is not None]
    assert len(messages) == len(deliveries)
    return [message.id for message in messages if user is None or message.recipient == user]


class IngressContract:
    """Publishing, receiving, acknowledging, handing back."""

    async def test_a_message_arrives_as_it_was(self, stage: Stage) -> None:
        sent = [
            stage.message("plain"),
            stage.message("keyed", keyed=True),
            stage.message("express", lane=Lane.EXPRESS),
            stage.message("typing", ephemeral=True),
        ]
        for message in sent:
            await stage.producer.publish([message])
        received = await take(await stage.factory.ingress_consumer(), 4)
        assert [delivery.message for delivery in received] == sent
        assert [delivery.attempt for delivery in received] == [1, 1, 1, 1]

    async def test_one_recipients_messages_keep_their_order(self, stage: Stage, second: Stage) -> None:
        """Whichever node accepts them, and whatever others send at the same time."""

        async def send(index: int, user: str) -> None:
            for number in range(20):
                producer = (stage, second)[number % 2].producer
                await producer.publish([stage.message(f"{index}-{number}", user)])

        users = [BOB, EVE, *(f"urn:sm:user:u{number}" for number in range(20))]
        await asyncio.gather(*(send(index, user) for index, user in enumerate(users)))
        consumer, received = await stage.factory.ingress_consumer(), list[Delivery]()
        while len(received) < 20 * len(users):
            received += await take(consumer, 1)
            await consumer.ack(received[-1:])
        for index, user in enumerate(users):
            assert ids(received, user) == [f"{index}-{number}" for number in range(20)]

    async def test_several_of_one_call_keep_their_order(self, stage: Stage) -> None:
        """RACES 53: each has its own outcome; also if they are of several recipients, and behind an earlier call."""
        users = [BOB, EVE, "urn:sm:user:u1"]
        sent = [stage.message(f"m{number}", users[number * number % 3]) for number in range(300)]
        assert await stage.producer.publish(sent[:256]) == [None] * 256
        assert await stage.producer.publish(sent[256:]) == [None] * 44
        assert await stage.producer.publish([]) == []
        consumer, received = await stage.factory.ingress_consumer(), list[Delivery]()
        while len(received) < len(sent):
            part = await take(consumer, 1)
            await consumer.ack(part)
            received += part
        for user in users:
            assert ids(received, user) == [message.id for message in sent if message.recipient == user]

    async def test_no_more_is_received_than_is_asked_for(self, stage: Stage) -> None:
        sent = [f"m{number}" for number in range(10)]
        for id_ in sent:
            await stage.producer.publish([stage.message(id_, f"urn:sm:user:of-{id_}")])
        consumer, received = await stage.factory.ingress_consumer(), list[Delivery]()
        async with asyncio.timeout(TURN_SECONDS):
            while len(received) < len(sent):
                part = await consumer.receive(3)
                assert 1 <= len(part) <= 3
                received += part
        assert sorted(ids(received)) == sent

    async def test_any_name_goes_through(self, stage: Stage) -> None:
        """RACES 39: whatever a key, an attribute or a path means to the service."""
        names = ["{}", "/", "a//b", "..", "__x__", "%2F", "a=b&c", "*", "\u00e9\u2603", "goog", "x" * 244]
        sent = [stage.message(f"m{number}", f"urn:sm:user:{name}") for number, name in enumerate(names)]
        for message in sent:
            await stage.producer.publish([message])
        received = await take(await stage.factory.ingress_consumer(), len(sent))
        assert sorted((one.message for one in received if one.message), key=lambda one: int(one.id[1:])) == sent

    async def test_what_is_handed_back_comes_again_in_its_order(self, stage: Stage) -> None:
        """RACES 35: a pipeline that is told to stop does this with all that it holds."""
        for number in range(3):
            await stage.producer.publish([stage.message(f"m{number}")])
        consumer = await stage.factory.ingress_consumer()
        await consumer.nack(await take(consumer, 3))
        again = await take(consumer, 3)
        assert ids(again) == ["m0", "m1", "m2"]
        assert [delivery.attempt for delivery in again] == [2, 2, 2]

    async def test_the_next_consumer_gets_what_was_not_acknowledged(
        self, stores: Stores, clock: ManualClock, stage: Stage
    ) -> None:
        """RACES 2, 35: and nothing else; also what was received and never looked at."""
        for number in range(4):
            await stage.producer.publish([stage.message(f"m{number}")])
        async with staged(stores, clock) as first:
            consumer = await first.factory.ingress_consumer()
            received = await take(consumer, 2)
            await consumer.ack(received[:1])
        assert ids(await take(await stage.factory.ingress_consumer(), 3)) == ["m1", "m2", "m3"]

    async def test_a_consumer_waits_for_what_comes(self, stage: Stage) -> None:
        consumer = await stage.factory.ingress_consumer()
        waiting = asyncio.create_task(take(consumer, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await stage.producer.publish([stage.message("m1")])
        assert ids(await waiting) == ["m1"]

    async def test_one_message_sent_twice_is_one_message(self, stage: Stage) -> None:
        """RACES 1: the confirmation was lost, and the sender tries again under the same Idempotency-Key."""
        message: Message = stage.message("m1", keyed=True)
        await stage.producer.publish([message])
        await stage.producer.publish([message])
        received = await take(await stage.factory.ingress_consumer(), 2)
        assert ids(received) == ["m1", "m1"]
        await stage.online.connect(await stage.connect(), 20)
        await stage.online.route(received)
        assert await stage.ids() == ["m1"]

    async def test_an_ingress_probe_works_when_it_takes_messages(self, stage: Stage) -> None:
        await stage.producer.probe()
