"""The simulated Pub/Sub does what the emulator does, call by call; what Google's service does beyond it is in its
documentation, and the simulation does that too (see docs/proof/simulation.md)."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest

from router.backends.google.channels import OPTIONS, PUBSUB
from router.backends.pubsub.wire import PubSubApi, PubsubMessage, StreamingPullRequest, status
from router.errors import RouterError
from tests.sim.vendors.grpc_channel import SimChannel
from tests.sim.vendors.pubsub_server import PubSub
from tests.sim.vendors.wires import Place, Wire
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
Pair = tuple[PubSubApi, PubSubApi]
Ask = Callable[[PubSubApi], Awaitable[Any]]


@pytest.fixture
async def both(anyio_backend: str, pubsub: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setenv(PUBSUB.emulator_variable, pubsub.address)
    project, chance = f"test-{uuid.uuid4().hex[:12]}", random.Random(1)
    async with grpc.aio.insecure_channel(pubsub.address, options=OPTIONS) as channel:
        simulated: Any = SimChannel(PubSub(Place(random.Random(1))), Wire())
        yield PubSubApi(channel, project, chance), PubSubApi(simulated, project, chance)


async def alike(both: Pair, ask: Ask) -> Any:
    """The answer, or the code of the refusal, that both give."""
    found: list[Any] = []
    for one in both:
        try:
            found.append(await ask(one))
        except RouterError as error:
            found.append(status(error))
    assert found[1] == found[0]
    return found[0]


async def made(both: Pair, *, ordered: bool = True, deadline: int = 10, attempts: int = 0) -> None:
    async def make(one: PubSubApi) -> None:
        for name in ("mail", "dead"):
            await one.create("create_topic", one.topic(name), name=one.topic(name))
        dead: dict[str, Any] = {"dead_letter_topic": one.topic("dead"), "max_delivery_attempts": attempts}
        await one.create(
            "create_subscription",
            one.subscription("reader"),
            name=one.subscription("reader"),
            topic=one.topic("mail"),
            enable_message_ordering=ordered,
            ack_deadline_seconds=deadline,
            **({"dead_letter_policy": dead} if attempts else {}),
        )

    await alike(both, make)


async def publish(one: PubSubApi, *bodies: str, key: str = "") -> None:
    await one.publish(one.topic("mail"), [PubsubMessage(data=body.encode(), ordering_key=key) for body in bodies])


async def pull(one: PubSubApi, limit: int = 100, seconds: float = 2.0) -> Sequence[Any]:
    """What comes within a while; the emulator is not always at once."""
    loop, taken = asyncio.get_running_loop(), list[Any]()
    until = loop.time() + seconds
    while not taken and loop.time() < until:
        taken += await one.pull(one.subscription("reader"), limit, seconds)
    return taken


def bodies(received: Sequence[Any]) -> list[str]:
    return [each.message.data.decode() for each in received]


async def test_what_is_missing_or_there(both: Pair) -> None:
    await made(both)
    api = both[0]
    for kind, name in (("topic", "mail"), ("topic", "none"), ("subscription", "reader"), ("subscription", "none")):
        full = getattr(api, kind)(name)

        async def there(one: PubSubApi, kind: str = kind, full: str = full) -> bool:
            return await one.get(kind, full) is not None

        await alike(both, there)
    topic, subscription = api.topic("mail"), api.subscription("reader")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("create_topic", {"name": topic}),
        ("create_subscription", {"name": subscription, "topic": topic}),
        ("create_subscription", {"name": api.subscription("another"), "topic": api.topic("none")}),
        ("delete_subscription", {"subscription": api.subscription("none")}),
        ("delete_topic", {"topic": api.topic("none")}),
        ("acknowledge", {"subscription": api.subscription("none"), "ack_ids": ["1"]}),
        ("publish", {"topic": api.topic("none"), "messages": [PubsubMessage(data=b"x")]}),
        ("publish", {"topic": topic, "messages": [PubsubMessage()]}),
        ("publish", {"topic": topic, "messages": []}),
        ("pull", {"subscription": api.subscription("none"), "max_messages": 1}),
    ]
    for method, fields in calls:

        async def ask(one: PubSubApi, method: str = method, fields: dict[str, Any] = fields) -> None:
            await one.call(method, "r", repeated=frozenset(), **fields)

        assert await alike(both, ask) is not None or method == "publish", (method, fields)


async def test_topics_come_in_pages_with_what_they_are_read_by(both: Pair) -> None:
    await made(both)

    async def listed(one: PubSubApi) -> list[tuple[str, list[str], str]]:
        await one.create("create_topic", one.topic("news"), name=one.topic("news"), labels={"begun": "17"})
        found, token = [], ""
        while True:
            page = await one.call("list_topics", one.project, project=one.project, page_size=2, page_token=token)
            for topic in page.topics:
                read = await one.call("list_topic_subscriptions", topic.name, topic=topic.name)
                found.append((topic.name, list(read.subscriptions), topic.labels.get("begun", "")))
            token = page.next_page_token
            if not token:
                return sorted(found)

    names = [name.rpartition("/")[2] for name, _, _ in await alike(both, listed)]
    assert names == ["dead", "mail", "news"]


async def test_a_topic_that_is_deleted_leaves_its_subscription_deaf(both: Pair) -> None:
    await made(both)

    async def deleted(one: PubSubApi) -> list[Any]:
        await one.call("delete_topic", one.topic("mail"), topic=one.topic("mail"))
        left = await one.get("subscription", one.subscription("reader"))
        await one.create("create_topic", one.topic("mail"), name=one.topic("mail"))
        await publish(one, "lost")
        heard = bodies(await pull(one, seconds=0.5))
        await one.call("delete_subscription", one.subscription("reader"), subscription=one.subscription("reader"))
        return [left.topic, heard]

    assert await alike(both, deleted) == ["_deleted-topic_", []]


async def test_settings_are_kept(both: Pair) -> None:
    await made(both, deadline=17, attempts=50)

    async def settings(one: PubSubApi) -> Any:
        found = await one.get("subscription", one.subscription("reader"))
        policy = found.dead_letter_policy
        return (
            found.topic, found.enable_message_ordering, found.ack_deadline_seconds, policy.dead_letter_topic,
            policy.max_delivery_attempts,
        )  # fmt: skip

    await alike(both, settings)


@pytest.mark.parametrize("attempts", [0, 50])
async def test_deliveries_are_counted_where_there_are_dead_letters(both: Pair, attempts: int) -> None:
    await made(both, attempts=attempts)

    async def ask(one: PubSubApi) -> Any:
        await publish(one, "a")
        counts = []
        for _ in range(3):
            (received,) = await pull(one)
            counts.append(received.delivery_attempt)
            await one.modify_ack_deadline(one.subscription("reader"), [received.ack_id], 0)
        return counts

    assert await alike(both, ask) == ([1, 2, 3] if attempts else [0, 0, 0])


async def test_what_is_handed_back_comes_again_with_all_behind_it(both: Pair) -> None:
    await made(both)

    async def ask(one: PubSubApi) -> Any:
        await publish(one, "a", "b", "c", key="k")
        first = await pull(one)
        await one.modify_ack_deadline(one.subscription("reader"), [each.ack_id for each in first], 0)
        return bodies(first), bodies(await pull(one))

    assert await alike(both, ask) == (["a", "b", "c"], ["a", "b", "c"])


async def test_what_is_acknowledged_stays_away(both: Pair) -> None:
    await made(both)

    async def ask(one: PubSubApi) -> Any:
        await publish(one, "a", "b", key="k")
        first = await pull(one)
        await one.acknowledge(one.subscription("reader"), [first[0].ack_id])
        await one.modify_ack_deadline(one.subscription("reader"), [first[1].ack_id], 0)
        second = await pull(one)
        await one.acknowledge(one.subscription("reader"), [each.ack_id for each in second])
        await publish(one, "c", key="k")
        return bodies(first), bodies(second), bodies(await pull(one))

    assert await alike(both, ask) == (["a", "b"], ["b"], ["c"])


async def test_what_is_behind_something_that_is_out_waits(both: Pair) -> None:
    """For whoever else pulls; other keys do not."""
    await made(both)

    async def ask(one: PubSubApi) -> Any:
        await publish(one, "a", key="k")
        first = await pull(one)
        await publish(one, "b", key="k")
        await publish(one, "x", key="other")
        other = await pull(one)
        await one.acknowledge(one.subscription("reader"), [each.ack_id for each in (*first, *other)])
        return bodies(first), bodies(other), bodies(await pull(one))

    assert await alike(both, ask) == (["a"], ["x"], ["b"])


async def test_one_stream_has_all_of_a_key(both: Pair) -> None:
    """Also what comes while the first is out."""
    await made(both)

    async def ask(one: PubSubApi) -> Any:
        stream = one.streaming_pull(one.subscription("reader"))
        await stream.write(
            StreamingPullRequest(subscription=one.subscription("reader"), stream_ack_deadline_seconds=10)
        )
        found: list[str] = []
        try:
            for body in ("a", "b", "c"):
                await publish(one, body, key="k")
                async with asyncio.timeout(5):
                    found += bodies((await stream.read()).received_messages)
        finally:
            stream.cancel()
        return found

    assert await alike(both, ask) == ["a", "b", "c"]


async def test_a_lease_that_ends_brings_the_message_back(both: Pair) -> None:
    """Not before its time. The only span that passes here."""
    await made(both, attempts=50)

    async def ask(one: PubSubApi) -> Any:
        await publish(one, "a", "b", key="k")
        first = await pull(one)
        await one.modify_ack_deadline(one.subscription("reader"), [each.ack_id for each in first], 3)
        soon = await one.call(
            "pull", "s", subscription=one.subscription("reader"), max_messages=10, return_immediately=True
        )
        again = await pull(one, seconds=10)
        return bodies(first), bodies(soon.received_messages), bodies(again), [each.delivery_attempt for each in again]

    assert await alike(both, ask) == (["a", "b"], [], ["a", "b"], [2, 2])
