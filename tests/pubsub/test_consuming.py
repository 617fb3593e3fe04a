"""Consuming: leases, deaths, redeliveries in the middle of a key, and what others publish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from router.backends.pubsub import acknowledgements, ingress
from router.backends.pubsub.bodies import IngressReader, ingress_message
from router.backends.pubsub.ingress import EXTEND_SECONDS, PubSubIngressConsumer
from router.backends.pubsub.resources import LEASE_SECONDS
from router.backends.pubsub.wire import PubsubMessage, ReceivedMessage
from router.checksum import checksum, is_whole
from router.clock import MICROSECONDS
from router.config import Config
from router.core.pipeline import Pipeline
from router.dead_reasons import DeadReason
from router.errors import Unavailable
from router.interfaces import IngressConsumer
from router.messages import Delivery, Lane, Message, Queued
from tests.contract.ingress import TURN_SECONDS, ids, take
from tests.contract.pipeline import announced, arrived, running
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually
from tests.support.stores_pubsub import PubSubStores

pytestmark = pytest.mark.anyio


def receipts(deliveries: Sequence[Delivery]) -> list[str]:
    return [str(delivery.receipt) for delivery in deliveries]


async def soon(condition: Callable[[], bool]) -> None:
    """Return once ``condition`` holds; the emulator takes its time."""
    async with asyncio.timeout(TURN_SECONDS):
        while not condition():  # noqa: ASYNC110 - what it looks at sets no event
            await asyncio.sleep(0.001)


async def die(consumer: IngressConsumer) -> None:
    """End ``consumer`` as a kill does: it hands nothing back."""
    assert isinstance(consumer, PubSubIngressConsumer)
    consumer._leases.clear()
    consumer._keeping.cancel()


async def test_what_is_held_is_extended_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for id_ in ("done", "held", "read ahead"):
        await stage.producer.publish([stage.message(id_.replace(" ", "-"))])
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    done, held = await take(consumer, 2)
    await soon(lambda: len(consumer._buffer) == 1)
    (read_ahead,) = consumer._buffer
    await consumer.ack([done])
    extended: list[tuple[list[str], int]] = []
    extend = consumer._api.modify_ack_deadline

    async def note(subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        extended.append((list(ack_ids), seconds))
        if len(extended) == 1:
            raise Unavailable("just now")
        await extend(subscription, ack_ids, seconds)

    monkeypatch.setattr(consumer._api, "modify_ack_deadline", note)
    for calls in (1, 2):
        await soon(lambda: stage.clock.sleepers > 0)
        stage.clock.advance(EXTEND_SECONDS)
        await soon(lambda: len(extended) == calls)  # noqa: B023 - awaited at once
    assert extended == [([held.receipt, read_ahead.ack_id], LEASE_SECONDS)] * 2
    assert 2 * EXTEND_SECONDS < LEASE_SECONDS, "one extension may fail"


async def test_many_leases_are_extended_in_bounded_requests(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    consumer._leases.update(dict.fromkeys(f"id-{number}" for number in range(2500)))
    sizes: list[int] = []

    async def note(subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        sizes.append(len(ack_ids))

    monkeypatch.setattr(consumer._api, "modify_ack_deadline", note)
    await soon(lambda: stage.clock.sleepers > 0)
    stage.clock.advance(EXTEND_SECONDS)
    await soon(lambda: len(sizes) == 3)
    assert sizes == [1000, 1000, 500]


async def test_leases_are_extended_by_eight_requests_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the 110 for 110,000 messages may take half a second then before leases lapse."""
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    consumer._leases.update(dict.fromkeys(f"id-{number}" for number in range(20_000)))
    under_way, most, extended = 0, 0, list[str]()

    async def note(subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        extended.extend(ack_ids)

    monkeypatch.setattr(consumer._api, "modify_ack_deadline", note)
    await soon(lambda: stage.clock.sleepers > 0)
    stage.clock.advance(EXTEND_SECONDS)
    await soon(lambda: len(extended) >= 20_000)
    assert sorted(extended) == sorted(consumer._leases)
    assert most == 8


async def test_a_request_that_hangs_holds_up_no_other_leases(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 11: its own are extended by the next one."""
    assert EXTEND_SECONDS + acknowledgements.EXTENSION_SECONDS + EXTEND_SECONDS < LEASE_SECONDS
    monkeypatch.setattr(acknowledgements, "EXTENSION_SECONDS", 0.05)
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    consumer._leases.update(dict.fromkeys(f"id-{number}" for number in range(2500)))
    firsts: list[str] = []

    async def note(subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        firsts.append(ack_ids[0])
        if len(firsts) == 1:
            await asyncio.Event().wait()

    monkeypatch.setattr(consumer._api, "modify_ack_deadline", note)
    for count in (3, 6):
        await soon(lambda: stage.clock.sleepers > 0)
        stage.clock.advance(EXTEND_SECONDS)
        await soon(lambda: len(firsts) == count)  # noqa: B023 - awaited at once
    assert firsts == ["id-0", "id-1000", "id-2000"] * 2


async def test_what_a_dead_consumer_held_comes_again_in_its_order(stores: PubSubStores, stage: Stage) -> None:
    """RACES 2, 5, 35: it hands nothing back and extends nothing; the lease here is cut to a second."""
    for number in range(3):
        await stage.producer.publish([stage.message(f"m{number}")])
    async with staged(stores, ManualClock()) as dying:
        consumer = await dying.factory.ingress_consumer()
        held = await take(consumer, 3)
        await die(consumer)
        subscription = stores.api.subscription("ingress-sub")
        await stores.api.modify_ack_deadline(subscription, receipts(held), 1)
    again = await take(await stage.factory.ingress_consumer(), 3)
    assert ids(again) == ["m0", "m1", "m2"]
    assert [delivery.attempt for delivery in again] == [2, 2, 2]
    assert not set(receipts(again)) & set(receipts(held))


async def test_what_is_acknowledged_does_not_come_again(stores: PubSubStores, stage: Stage) -> None:
    """Though its lease ends: the first that comes again is the one behind it."""
    for id_ in ("done", "held"):
        await stage.producer.publish([stage.message(id_)])
    async with staged(stores, ManualClock()) as dying:
        consumer = await dying.factory.ingress_consumer()
        both = await take(consumer, 2)
        await consumer.ack(both[:1])
        await die(consumer)
    await stores.api.modify_ack_deadline(stores.api.subscription("ingress-sub"), receipts(both), 1)
    assert ids(await take(await stage.factory.ingress_consumer(), 1)) == ["held"]


async def test_a_redelivery_in_the_middle_of_a_key_changes_nothing(
    stores: PubSubStores, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 4, 5: m1 comes back while the pipeline still holds m1 and what is behind it."""
    put, begun, go = type(stage.cold).put, asyncio.Event(), asyncio.Event()
    received, start = list[int | str](), Pipeline.take

    async def slow(cold: Any, messages: Sequence[Queued]) -> list[Queued]:
        begun.set()
        await go.wait()
        return await put(cold, messages)

    def note(pipeline: Pipeline, deliveries: Sequence[Delivery]) -> None:
        received.extend(delivery.receipt for delivery in deliveries)
        start(pipeline, deliveries)

    monkeypatch.setattr(type(stage.cold), "put", slow)
    monkeypatch.setattr(Pipeline, "take", note)
    sent = ["m1", "m2", "m3"]
    for id_ in sent:
        await stage.producer.publish([stage.message(id_)])
    async with running(stage) as pipeline:
        await begun.wait()
        await soon(lambda: pipeline.statistics().held == 3)
        await stores.api.modify_ack_deadline(stores.api.subscription("ingress-sub"), [str(received[0])], 0)

        async def is_back() -> bool:
            return pipeline.statistics().held > 3

        await eventually(stage, is_back)
        go.set()
        await arrived(stage, *sent)
        await announced(stage, *sent)

        async def all_done() -> bool:
            return pipeline.statistics().held == 0

        await eventually(stage, all_done)
        await stage.producer.publish([stage.message("m4")])
        await arrived(stage, *sent, "m4")


async def test_a_consumer_that_stops_leaves_no_call_behind(
    stores: PubSubStores, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 35: a Pull that was cancelled would go on taking mail at the emulator, and hold it for its lease."""
    calls: list[str] = []
    stores.pulls = 8
    async with staged(stores, ManualClock()) as stopped:
        consumer = await stopped.factory.ingress_consumer()
        assert isinstance(consumer, PubSubIngressConsumer)
        pull = consumer._api.pull

        async def noted(subscription: str, limit: int, seconds: float) -> Sequence[Any]:
            calls.append("begun")
            received = await pull(subscription, limit, seconds)
            calls.append("ended")
            return received

        monkeypatch.setattr(consumer._api, "pull", noted)
        await stage.producer.publish([stage.message("m1")])
        await consumer.ack(await take(consumer, 1))
        await soon(lambda: calls.count("begun") >= 8)
    assert calls.count("ended") == calls.count("begun")


async def test_what_is_pulled_and_handed_back_stays_before_what_waits(stores: PubSubStores, stage: Stage) -> None:
    """RACES 4, 35: the emulator itself would give out what waits for the same key first."""
    stores.pulls = 3
    async with staged(stores, ManualClock()) as pulling:
        consumer = await pulling.factory.ingress_consumer()
        for turn in range(2):
            await stage.producer.publish([stage.message(f"a{turn}")])
            held = await take(consumer, 1)
            for id_ in ("b", "c"):
                await stage.producer.publish([stage.message(f"{id_}{turn}")])
            await consumer.nack(held)
            again = list[Delivery]()
            while len(again) < 3:
                some = await take(consumer, 1)
                await consumer.ack(some)
                again += some
            assert ids(again) == [f"a{turn}", f"b{turn}", f"c{turn}"]


async def test_two_pipelines_share_one_subscription(stores: PubSubStores, stage: Stage) -> None:
    """RACES 5: each recipient's mail stays in order, whoever routes it."""
    users = [f"urn:sm:user:u{number}" for number in range(12)]
    async with staged(stores, stage.clock) as second, running(stage), running(second):

        async def send(index: int, user: str) -> None:
            for number in range(15):
                await stage.producer.publish([stage.message(f"{index}-{number}", user)])

        await asyncio.gather(*(send(index, user) for index, user in enumerate(users)))
        for index, user in enumerate(users):
            await arrived(stage, *(f"{index}-{number}" for number in range(15)), user=user)


async def test_no_more_is_read_than_there_is_room_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingress, "BUFFER_MESSAGES", 5)
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    sent = [f"m{number}" for number in range(40)]
    for id_ in sent[:20]:
        await stage.producer.publish([stage.message(id_)])
    received = await take(consumer, 1)
    await soon(lambda: len(consumer._buffer) >= 4)
    for id_ in sent[20:]:
        await stage.producer.publish([stage.message(id_)])
    assert len(consumer._buffer) <= 20, "one answer of the service may be larger, and is the last"
    received += await take(consumer, 39)
    assert ids(received) == sent
    assert consumer._bytes == 0


async def test_others_may_publish_the_bare_envelope(stores: PubSubStores, stage: Stage) -> None:
    """In any spelling; a redelivery is the same message."""
    body = b'{"recipient_id": "bob", "encrypted_data": "__4", "priority": "7", "isEphemeral": null}'
    await stores.publish_raw(body)
    consumer = await stage.factory.ingress_consumer()
    (first,) = await take(consumer, 1)
    await consumer.nack([first])
    (again,) = await take(consumer, 1)
    assert first.message == again.message
    assert first.message is not None
    assert first.message.envelope == b'{"recipientId":"urn:sm:user:bob","encryptedData":"//4=","priority":7}'
    assert (first.message.recipient, first.message.lane, first.message.ephemeral) == (BOB, Lane.EXPRESS, False)
    assert first.message.accepted_at > 1_600_000_000_000_000, "when it was published"
    await stores.publish_raw(body)
    (other,) = await take(consumer, 1)
    assert other.message is not None
    assert other.message.id != first.message.id


async def test_a_publisher_may_choose_the_id(stores: PubSubStores, stage: Stage) -> None:
    await stores.publish_raw(b'{"recipientId":"bob"}', id="their-own", accepted_at="no time")
    (delivery,) = await take(await stage.factory.ingress_consumer(), 1)
    assert delivery.message is not None
    assert delivery.message.id == "their-own"
    assert delivery.message.accepted_at > 1_600_000_000_000_000


async def test_an_acceptance_time_in_the_future_becomes_now(stores: PubSubStores, stage: Stage) -> None:
    """By the router's clock, which ephemeral mail and the retention go by."""
    past, now = stage.clock.now() - 5, stage.clock.now()
    for id_, at in (("past", past), ("to-come", now + 86_400_000_000), ("far", 10**18 - 1)):
        await stores.publish_raw(b'{"recipientId":"bob"}', id=id_, accepted_at=str(at))
    deliveries = await take(await stage.factory.ingress_consumer(), 3)
    found = {each.message.id: each.message.accepted_at for each in deliveries if each.message is not None}
    assert found == {"past": past, "to-come": now, "far": now}


@pytest.mark.parametrize(
    ("told", "published", "here"), [(-30, 0, 1), (3600, 0, 1), (0, -30, 1), (0, 3600, 1), (0, 1, -30), (0, 1, 3600)]
)
def test_one_clock_that_is_wrong_does_not_decide_when_ephemeral_mail_was_accepted(
    told: int, published: int, here: int
) -> None:
    """That of the API, of Pub/Sub, or of the pipeline: what they say is seconds apart, and one is far off."""
    clock = ManualClock()
    start = clock.now()
    clock.advance(here)
    attributes = {"id": "typing", "accepted_at": str(start + told * MICROSECONDS)}
    message = PubsubMessage(data=b'{"recipientId":"bob","isEphemeral":true}', attributes=attributes)
    message.publish_time.FromMicroseconds(start + published * MICROSECONDS)
    delivery = IngressReader(Config(), clock).read(ReceivedMessage(ack_id="1", message=message))
    assert delivery.message is not None
    assert 0 <= delivery.message.accepted_at - start <= MICROSECONDS


@pytest.mark.parametrize("body", [b"no envelope \xff", b'{"recipientId":"bom"}'])
@pytest.mark.parametrize("shards", [0, 4])
def test_whose_a_damaged_body_is_says_its_key(body: bytes, shards: int) -> None:
    """RACES 42: so that a place on the way to cold can be freed. A key that is a shard says it of nobody."""
    clock, envelope = ManualClock(), b'{"recipientId":"urn:sm:user:bob"}'
    sent = Message("m1", BOB, envelope, Lane.NORMAL, False, clock.now(), checksum=checksum("m1", BOB, envelope))
    message = ingress_message(sent, shards)
    message.data = body
    read = IngressReader(Config(), clock).read(ReceivedMessage(ack_id="1", message=message))
    if read.message is None:
        assert (read.origin, read.recipient, read.reason) == ("m1", "" if shards else BOB, DeadReason.DAMAGED)
    else:
        assert not is_whole(read.message)
        assert (read.message.id, read.message.recipient) == ("m1", "urn:sm:user:bom" if shards else BOB)


@pytest.mark.parametrize(
    ("body", "attributes", "detail"),
    [
        (b"no envelope \xff", {}, "not UTF-8"),
        (b"{}", {}, "recipientId"),
        (b'{"recipientId":"bob"}', {"id": "a/b"}, 'attribute "id"'),
        (b'{"recipientId":"bob","encryptedData":"%b"}' % (b"A" * 400_000), {}, "the maximum is 262144"),
    ],
)
async def test_what_cannot_be_read_is_a_dead_letter(
    stores: PubSubStores, stage: Stage, body: bytes, attributes: dict[str, str], detail: str
) -> None:
    """RACES 8: with its reason and its body, and nothing behind it waits."""
    await stores.publish_raw(body, **attributes)
    await stores.publish_raw(b'{"recipientId":"urn:sm:user:{eve}/__x__"}', id="behind")
    async with running(stage):
        await arrived(stage, "behind", user=EVE)

        async def refused() -> bool:
            return len(await stores.dead_letters()) == 1

        await eventually(stage, refused)
    (letter,) = await stores.dead_letters()
    assert letter.data == body
    assert letter.attributes["reason"] == "undecodable"
    assert detail in letter.attributes["detail"]
    assert len(letter.attributes["id"]) == 36


async def test_the_api_may_have_accepted_more_than_the_limit_is_now(stores: PubSubStores, stage: Stage) -> None:
    body = b'{"recipientId":"urn:sm:user:bob","encryptedData":"%b"}' % (b"A" * 400_000)
    await stores.publish_raw(body, id="large", accepted_at="1790000000000000")
    (delivery,) = await take(await stage.factory.ingress_consumer(), 1)
    assert delivery.message is not None
    assert delivery.message.envelope == body


async def test_a_reader_that_fails_is_not_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug ends the pipeline, which ends the service; it does not leave it waiting."""
    consumer = await stage.factory.ingress_consumer()
    assert isinstance(consumer, PubSubIngressConsumer)
    waiting = asyncio.create_task(consumer.receive(1))
    await asyncio.sleep(0)

    async def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(consumer._settling, "extend", lambda *_: broken())
    await soon(lambda: stage.clock.sleepers > 0)
    stage.clock.advance(EXTEND_SECONDS)
    with pytest.raises(ZeroDivisionError):
        await waiting


async def test_a_stop_keeps_the_order_on_the_emulator(stores: PubSubStores, stage: Stage) -> None:
    """RACES 35: what came after what is held is not given to the next one before it."""
    stores.pulls = 3
    await stage.producer.publish([stage.message("m0")])
    async with staged(stores, ManualClock()) as first:
        assert ids(await take(await first.factory.ingress_consumer(), 1)) == ["m0"]
        for number in range(1, 4):
            await stage.producer.publish([stage.message(f"m{number}")])
    async with staged(stores, ManualClock()) as second:
        assert ids(await take(await second.factory.ingress_consumer(), 4)) == ["m0", "m1", "m2", "m3"]
