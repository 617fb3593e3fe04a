"""What goes wrong on the wires, one thing at a time: what the servers then hold, and what the clients make of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from router.backends.firestore.client import Client as FirestoreClient
from router.backends.firestore.wire import new_write
from router.backends.firestore.write_batches import Writer
from router.backends.google.calls import Patience
from router.backends.pubsub.publisher import Publisher
from router.backends.pubsub.receiver import TICK_SECONDS, Pulls
from router.backends.pubsub.wire import PubSubApi, PubsubMessage
from router.backends.redis.address import parse
from router.backends.redis.client import Client
from router.backends.redis.keys import Keys
from router.backends.redis.scripts import Scripts
from router.errors import StorageFull, Unavailable
from tests.sim.loop import SimLoop
from tests.sim.vendors.firestore_server import Firestore
from tests.sim.vendors.grpc_channel import SimChannel
from tests.sim.vendors.pubsub_server import PubSub
from tests.sim.vendors.redis_server import Redis
from tests.sim.vendors.wires import FINE, Fate, Place, Wire
from tests.sim.vendors.wiring import REDIS_HOST, simulated_redis

SECONDS = 3.0
TORN_BEFORE, ANSWER_LOST, UNANSWERED = Fate(None, 0.0, fails=True), Fate(0.0, None), Fate(None, None)
TORN_AFTER, LATE, HALF = Fate(0.0, 0.0, fails=True), Fate(5.0, 0.0), Fate(0.0, 0.0, fails=True, part=0.5)


class Scripted(Wire):
    """The fates of the next calls; all others are fine."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []
        self.calls = 0

    def fate(self, call: str) -> Fate:
        self.calls += 1
        return self.fates.pop(0) if self.fates else FINE


class Timed(Wire):
    """When each call was made."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def fate(self, call: str) -> Fate:
        self.at.append(asyncio.get_running_loop().time())
        return FINE


def simulated(work: Callable[[], Awaitable[None]]) -> float:
    """Run ``work`` in virtual time; returns how long it took."""
    failures: list[Any] = []
    loop = SimLoop(random.Random(1), shuffled=False, failed=failures.append)  # type: ignore[abstract]  # see there

    async def run() -> None:
        await work()

    try:
        loop.run(run())
    finally:
        loop.close()
    assert not failures
    return loop.time()


def listing(scripts: Scripts, key: str, user: str = "u") -> Any:
    return scripts.call("list", (key,), "always", 1, user)


def mail(scripts: Scripts) -> Any:
    """One message that goes cold."""
    about, message = (b"channel:", "u", 10, 1000, 0, 0, 0), ("m1", 1, 0, 0, 1, 0, bytes(21))
    return scripts.call("route", Keys("prefix").of("u"), 1, *about, *message)


class OneRedis:
    """A server, its wire, and the router's client, which knows its scripts."""

    def __init__(self) -> None:
        self.server, self.wire, self.scripts = Redis(Place(random.Random(1))), Scripted(), Scripts()

    async def opened(self) -> Client:
        address = parse(f"redis://{REDIS_HOST}", "single")
        client = Client(address, "single", self.scripts, service="", pool_size=4, timeout_seconds=SECONDS)
        await client.run([listing(self.scripts, "first")])
        return client

    def run(self, work: Callable[[Client], Awaitable[None]]) -> float:
        async def opened() -> None:
            await work(await self.opened())

        with simulated_redis(self.server, lambda name: self.wire):
            return simulated(opened)


@pytest.mark.parametrize(("fate", "done"), [(ANSWER_LOST, True), (UNANSWERED, False)])
def test_redis_is_not_asked_again_where_it_may_be_about_to_answer(fate: Fate, done: bool) -> None:
    redis = OneRedis()

    async def work(client: Client) -> None:
        redis.wire.fates = [fate]
        with pytest.raises(Unavailable):
            await client.run([listing(redis.scripts, "k")])
        assert bool(redis.server.data.exists(b"k")) is done
        assert await client.run([listing(redis.scripts, "k")]) == [1]

    assert SECONDS <= redis.run(work) < 2 * SECONDS


@pytest.mark.parametrize("fate", [TORN_BEFORE, TORN_AFTER, HALF])
def test_what_was_on_a_torn_connection_is_sent_once_more(fate: Fate) -> None:
    """Also what was done in part: all of it again."""
    redis = OneRedis()

    async def work(client: Client) -> None:
        redis.wire.fates = [fate]
        found = await client.run([listing(redis.scripts, key) for key in "abcd"])
        assert found == [1, 1, 1, 1]
        assert await client.run([("ZCARD", key) for key in "abcd"]) == [1, 1, 1, 1]

    assert redis.run(work) < 1


def test_what_is_late_is_done_all_the_same() -> None:
    redis = OneRedis()

    async def work(client: Client) -> None:
        redis.wire.fates = [LATE]
        with pytest.raises(Unavailable):
            await client.run([listing(redis.scripts, "k")])
        assert not redis.server.data.exists(b"k")
        await client.run([listing(redis.scripts, "other")])
        await asyncio.sleep(5)
        assert redis.server.data.exists(b"k")

    redis.run(work)


def test_a_redis_that_was_restarted_is_sent_the_scripts_and_has_the_data() -> None:
    redis = OneRedis()

    async def work(client: Client) -> None:
        await client.run([listing(redis.scripts, "k")])
        before = await client.on_each("INFO")
        redis.server.stop()
        with pytest.raises(Unavailable):
            await client.run([("PING",)])
        redis.server.start()
        assert await client.run([listing(redis.scripts, "k", "other")]) == [1]
        assert await client.run([("ZCARD", "k")]) == [2]
        after = await client.on_each("INFO")
        assert before[0][1]["run_id"] != after[0][1]["run_id"]

    redis.run(work)


def test_a_redis_that_forgets_has_nothing() -> None:
    redis = OneRedis()

    async def work(client: Client) -> None:
        await client.run([listing(redis.scripts, "k")])
        redis.server.forget()
        assert await client.run([listing(redis.scripts, "k", "other")]) == [1]
        assert await client.run([("ZCARD", "k")]) == [1]

    redis.run(work)


def test_a_redis_that_is_full_takes_no_new_mail_and_does_the_rest() -> None:
    redis = OneRedis()

    async def work(client: Client) -> None:
        redis.server.full = True
        with pytest.raises(StorageFull):
            await client.run([mail(redis.scripts)])
        assert await client.run([listing(redis.scripts, "index")]) == [1]

    redis.run(work)


@pytest.mark.parametrize(("fate", "copies"), [(ANSWER_LOST, 2), (TORN_AFTER, 2), (TORN_BEFORE, 1), (LATE, 2)])
def test_what_pubsub_did_not_confirm_is_published_again(fate: Fate, copies: int) -> None:
    """And is there twice where the first call has worked, or works late."""
    server, wire = PubSub(Place(random.Random(1))), Scripted()
    channel: Any = SimChannel(server, wire)
    api = PubSubApi(channel, "p", random.Random(1))
    topic, reader = api.topic("mail"), api.subscription("reader")

    async def work() -> None:
        await api.create("create_topic", topic, name=topic)
        await api.create("create_subscription", reader, name=reader, topic=topic, enable_message_ordering=True)
        async with Publisher(api, topic) as publisher:
            wire.fates = [fate]
            await publisher.publish([PubsubMessage(data=b"x", ordering_key="k")])
        await asyncio.sleep(6)
        assert len(list(server.subscriptions[reader].waiting())) == copies

    simulated(work)


def test_calls_that_wait_do_not_begin_together() -> None:
    """The emulator looks for each a fixed time after it began: all at once, and a message waits longer for the next."""
    server, wire = PubSub(Place(random.Random(1))), Timed()
    channel: Any = SimChannel(server, wire)
    api = PubSubApi(channel, "p", random.Random(1))
    topic, reader = api.topic("mail"), api.subscription("reader")

    async def took(received: Sequence[Any]) -> None:
        assert not received, "nobody sends anything"

    async def work() -> None:
        await api.create("create_topic", topic, name=topic)
        await api.create("create_subscription", reader, name=reader, topic=topic, enable_message_ordering=True)
        pulls, began, wire.at = Pulls(api, reader, 5, random.Random(1)), asyncio.get_running_loop().time(), []
        running = asyncio.create_task(pulls.run(took, lambda error: None))
        await asyncio.sleep(TICK_SECONDS)
        assert wire.at == pytest.approx([began + number * TICK_SECONDS / 5 for number in range(5)], abs=0.001)
        await pulls.stop()
        await running

    simulated(work)


def test_firestore_refuses_single_writes_for_a_while() -> None:
    """Whoever asks for long enough gets them done; each is either done, or said not to be."""
    server, wire = Firestore(Place(random.Random(1))), Scripted()
    channel: Any = SimChannel(server, wire)
    root = "projects/p/databases/(default)/documents"

    async def work() -> None:
        client = FirestoreClient([channel], "projects/p/databases/(default)", random.Random(1), Patience())
        writer = Writer(client)
        wire.fates = [Fate(part=0.5)]
        writes = []
        for number in range(40):
            made = new_write()
            made.update.name = f"{root}/mail/{number}"
            made.update.fields["n"].integer_value = number
            writes.append(made)
        results = await writer.write(writes)
        refused = [write.update.name for write, result in zip(writes, results, strict=True) if result is not None]
        assert 0 < len(refused) < 40
        there = server.collections[f"{root}/mail"]
        assert all(write.update.name in there for write in writes if write.update.name not in refused)
        server.calm()
        assert await writer.write(writes) == [None] * 40

    simulated(work)


def test_each_fault_is_seen_by_whoever_calls() -> None:
    """A wire that is fine changes nothing: the tests above fail by their faults alone."""
    redis = OneRedis()

    async def work(client: Client) -> None:
        assert await client.run([listing(redis.scripts, "k")]) == [1]

    assert redis.run(work) < 1
    assert redis.wire.calls
