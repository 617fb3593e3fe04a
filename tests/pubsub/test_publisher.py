"""Publishing: batches without waiting for them, one request of a key at a time, and what fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest

from router.backends.pubsub import publisher as publishing
from router.backends.pubsub.publisher import Publisher
from router.backends.pubsub.wire import PubSubApi, PubsubMessage
from router.errors import Refused, RouterError, Unavailable
from tests.contract.ingress import take
from tests.contract.stage import Stage, until
from tests.support.stores_pubsub import PubSubStores

pytestmark = pytest.mark.anyio


class Gate:
    """Between a publisher and the emulator: holds requests until they are let through, and may fail them."""

    def __init__(self, api: PubSubApi) -> None:
        self.requests: list[tuple[str, list[str]]] = []
        """(ordering key, bodies) of each, in the order in which they were begun."""
        self.under_way: list[str] = []
        self.overlapped = False
        self.failures: list[Exception] = []
        self.open = asyncio.Event()
        self._api = api

    async def publish(self, topic: str, messages: Sequence[Any]) -> None:
        key = messages[0].ordering_key
        self.requests.append((key, [message.data.decode() for message in messages]))
        self.overlapped |= bool(key) and key in self.under_way
        self.under_way.append(key)
        try:
            await self.open.wait()
            if self.failures:
                raise self.failures.pop(0)
            await self._api.publish(topic, messages)
        finally:
            self.under_way.remove(key)


@pytest.fixture
def gate(stores: PubSubStores) -> Gate:
    return Gate(stores.api)


@pytest.fixture
async def publisher(anyio_backend: str, stores: PubSubStores, gate: Gate) -> AsyncIterator[Publisher]:
    async with Publisher(gate, stores.api.topic("ingress-topic")) as opened:  # type: ignore[arg-type]  # has what it needs
        yield opened


def start(publisher: Publisher, *bodies: str, key: str = "k") -> list[asyncio.Task[None]]:
    """One caller for each body."""
    return [
        asyncio.create_task(publisher.publish([PubsubMessage(data=body.encode(), ordering_key=key)])) for body in bodies
    ]


async def test_what_waits_for_its_key_goes_in_one_request(publisher: Publisher, gate: Gate) -> None:
    first = start(publisher, "1", "2")
    await until(lambda: len(gate.requests) == 1)
    others = [*start(publisher, "3", "4"), *start(publisher, "other", key="l"), *start(publisher, "5")]
    await until(lambda: len(gate.requests) == 2)
    gate.open.set()
    await asyncio.gather(*first, *others)
    assert gate.requests == [("k", ["1", "2"]), ("l", ["other"]), ("k", ["3", "4", "5"])]


async def test_requests_of_one_key_never_overlap(publisher: Publisher, gate: Gate) -> None:
    gate.open.set()
    callers = [start(publisher, f"{number}", key=f"k{number % 7}")[0] for number in range(500)]
    await asyncio.gather(*callers)
    assert not gate.overlapped
    sent: dict[str, list[str]] = {}
    for key, bodies in gate.requests:
        sent.setdefault(key, []).extend(bodies)
    assert sent == {f"k{key}": [f"{number}" for number in range(key, 500, 7)] for key in range(7)}


async def test_requests_under_way_are_bounded(stores: PubSubStores, gate: Gate) -> None:
    async with Publisher(gate, stores.api.topic("ingress-topic"), calls=2) as publisher:  # type: ignore[arg-type]  # has what it needs
        callers = [*start(publisher, "1", key="a"), *start(publisher, "2", key="b"), *start(publisher, "3", key="c")]
        await until(lambda: len(gate.requests) == 2)
        await asyncio.sleep(0)
        assert len(gate.under_way) == 2
        gate.open.set()
        await asyncio.gather(*callers)
        assert len(gate.requests) == 3


async def test_a_batch_is_bounded(publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "BATCH_MESSAGES", 2)
    monkeypatch.setattr(publishing, "BATCH_BYTES", 60)
    gate.open.set()
    await asyncio.gather(*start(publisher, "1", "2", "3", "long" * 10, "long" * 20, "4"))
    assert [len(bodies) for _, bodies in gate.requests] == [2, 2, 1, 1]


async def test_a_key_that_failed_goes_on(publisher: Publisher, gate: Gate) -> None:
    gate.open.set()
    gate.failures = [Unavailable("down")]
    first = start(publisher, "1", "2")
    results = await asyncio.gather(*first, return_exceptions=True)
    assert [str(result) for result in results] == ["down", "down"]
    await asyncio.gather(*start(publisher, "3"))
    assert gate.requests == [("k", ["1", "2"]), ("k", ["3"])]


async def test_one_that_is_refused_spoils_no_others(publisher: Publisher, gate: Gate) -> None:
    gate.open.set()
    gate.failures = [Refused("a bad one"), Refused("this one")]
    results = await asyncio.gather(*start(publisher, "bad", "1", "2"), return_exceptions=True)
    assert [str(result) for result in results] == ["this one", "None", "None"]
    assert gate.requests[1:] == [("k", ["bad"]), ("k", ["1"]), ("k", ["2"])]


def several(publisher: Publisher, *bodies: str) -> asyncio.Task[list[RouterError | None]]:
    """One caller for all bodies; the first letter of each is its key."""
    messages = [PubsubMessage(data=body.encode(), ordering_key=body[0]) for body in bodies]
    return asyncio.create_task(publisher.publish_each(messages))


async def test_nothing_overtakes_what_failed_in_one_call(
    publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 53: what is sent again comes before what was behind it."""
    monkeypatch.setattr(publishing, "BATCH_MESSAGES", 2)
    gate.open.set()
    gate.failures = [Unavailable("down")]
    outcomes = await several(publisher, "k1", "k2", "l1", "k3", "k4", "l2", "k5")
    assert [str(outcome) for outcome in outcomes] == ["down", "down", "None", "down", "down", "None", "down"]
    assert gate.requests == [("k", ["k1", "k2"]), ("l", ["l1", "l2"])]
    # Others go on, and what did not go takes no room.
    await asyncio.gather(*start(publisher, "6"))
    assert (publisher._messages, publisher._bytes) == (0, 0)


async def test_nothing_overtakes_what_failed_behind_one_that_is_refused(publisher: Publisher, gate: Gate) -> None:
    """RACES 53: what was sent together goes one after another then."""
    gate.open.set()
    gate.failures = [Refused("one of them"), Refused("this one"), Unavailable("down")]
    outcomes = await several(publisher, "k1", "k2", "k3")
    assert [str(outcome) for outcome in outcomes] == ["this one", "down", "down"]
    assert [bodies for _, bodies in gate.requests] == [["k1", "k2", "k3"], ["k1"], ["k2"]]
    assert (publisher._messages, publisher._bytes) == (0, 0)


async def test_each_of_one_call_has_its_outcome(
    publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 11, 37: where there is no room for the rest, and where the answer does not come."""
    monkeypatch.setattr(publishing, "WAITING_MESSAGES", 2)
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 0.05)
    outcomes = await several(publisher, "k1", "l1", "m1", "k2")
    said = [str(outcome) for outcome in outcomes]
    assert ["did not confirm" in one for one in said] == [True, True, False, False]
    assert ["too many messages wait" in one for one in said] == [False, False, True, True]


async def test_beyond_what_may_wait_is_refused_at_once(
    publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 37."""
    monkeypatch.setattr(publishing, "WAITING_MESSAGES", 3)
    callers = start(publisher, "1", "2", "3")
    await until(lambda: len(gate.requests) == 1)
    with pytest.raises(Unavailable, match="too many messages wait"):
        await publisher.publish([PubsubMessage(data=b"4", ordering_key="k")])
    assert not publisher.offer(PubsubMessage(data=b"5"))
    gate.open.set()
    await asyncio.gather(*callers)
    await asyncio.gather(*start(publisher, "6", "7", "8"))
    assert [bodies for _, bodies in gate.requests] == [["1", "2", "3"], ["6", "7", "8"]]


async def test_waiting_bytes_are_bounded_and_given_back(
    publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "WAITING_BYTES", 100)
    caller = start(publisher, "x" * 80)
    await until(lambda: len(gate.requests) == 1)
    with pytest.raises(Unavailable, match="too many messages wait"):
        await publisher.publish([PubsubMessage(data=b"x" * 80)])
    gate.failures = [Unavailable("down")]
    gate.open.set()
    await asyncio.gather(*caller, return_exceptions=True)
    await publisher.publish([PubsubMessage(data=b"x" * 80)])


async def test_what_nobody_waits_for_any_more_is_not_sent(publisher: Publisher, gate: Gate) -> None:
    first = start(publisher, "1")
    await until(lambda: len(gate.requests) == 1)
    gone, kept = start(publisher, "2", "3")
    await asyncio.sleep(0)
    gone.cancel()
    gate.open.set()
    await asyncio.gather(*first, kept)
    assert gate.requests == [("k", ["1"]), ("k", ["3"])]


async def test_who_is_not_confirmed_in_time_is_told(
    publisher: Publisher, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 11: the call never answers; the caller does not wait for ever, and neither do others."""
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 0.05)
    with pytest.raises(Unavailable, match="did not confirm"):
        await publisher.publish([PubsubMessage(data=b"1", ordering_key="k")])
    gate.open.set()
    await publisher.publish([PubsubMessage(data=b"2", ordering_key="l")])


async def test_closing_tells_those_who_wait(stores: PubSubStores, gate: Gate) -> None:
    """RACES 36."""
    async with Publisher(gate, stores.api.topic("ingress-topic")) as publisher:  # type: ignore[arg-type]  # has what it needs
        callers = start(publisher, "1")
        await until(lambda: len(gate.requests) == 1)
        callers += start(publisher, "2")
        await asyncio.sleep(0)
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]


async def test_a_lost_confirmation_is_asked_for_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 1: the publish succeeded, its confirmation was lost; it is published again and stays one message."""
    stubs = stage.producer._api._stubs  # type: ignore[attr-defined]  # between the client and the wire
    publish, calls = stubs["publish"], 0

    async def lose_the_first(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        answer = await publish(*arguments, **more)
        if calls == 1:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "connection lost")
        return answer

    monkeypatch.setitem(stubs, "publish", lose_the_first)
    await stage.producer.publish([stage.message("m1")])
    received = await take(await stage.factory.ingress_consumer(), 2)
    assert [delivery.message and delivery.message.id for delivery in received] == ["m1", "m1"]
    await stage.connect()
    await stage.online.route(received)
    assert await stage.ids() == ["m1"]
