"""Commands that look at dead letters and push commands lease them, and hand back what they do not remove."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from router.backends.pubsub import push
from router.backends.pubsub.backend import PubSubBackend
from router.backends.pubsub.push import PubSubOutbox
from router.core.dead_letter_replay import REFUSED, Replayer
from router.dead_reasons import DeadReason
from router.errors import ConfigError, Unavailable
from router.messages import DeadLetter, Lane
from tests.contract.stage import BOB, EVE, Stage, envelope
from tests.support.backends import opened
from tests.support.stores_pubsub import PUSH_READER, PubSubStores

pytestmark = pytest.mark.anyio


async def bury(stage: Stage, *ids: str, user: str = BOB) -> None:
    body, now = envelope(user, Lane.NORMAL, ephemeral=False), stage.clock.now()
    letters = [DeadLetter(id_, user, DeadReason.QUEUE_FULL, "full", body, 1, now) for id_ in ids]
    await (await stage.factory.dead_letters()).publish(letters)


async def test_letters_that_were_looked_at_are_there_for_others_at_once(
    stores: PubSubStores, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The emulator's clock is the real one, and no lease ends within this test."""
    monkeypatch.setattr(push, "PAGE", 3)
    ids = [f"m{number}" for number in range(8)]
    await bury(stage, *ids)
    for _ in range(2):
        queue = await stage.factory.dead_letter_queue()
        pages = [page async for page in queue.pages()]
        assert sorted(letter.id for page in pages for _, letter in page) == ids
        assert len(pages) >= 3
    assert sorted(id_ for id_, _ in await stage.letters()) == ids


async def test_who_leaves_early_hands_back_what_they_hold(
    stores: PubSubStores, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "PAGE", 3)
    await bury(stage, "m1", "m2", "m3", "m4", "m5")
    async with aclosing((await stage.factory.dead_letter_queue()).pages()) as pages:
        async for page in pages:
            assert page
            break
    assert sorted(id_ for id_, _ in await stage.letters()) == ["m1", "m2", "m3", "m4", "m5"]


async def test_a_letter_whose_message_cannot_be_published_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await bury(stage, "m1", "m2")
    replayer = await stage.factory.replayer()

    async def refuse(_: object) -> object:
        raise Unavailable("the ingress is away")

    monkeypatch.setattr(replayer._producer, "publish", refuse)
    with pytest.raises(Unavailable):
        await replayer.replay(REFUSED, dry_run=False)
    assert sorted(await stage.letters()) == [("m1", "queue-full"), ("m2", "queue-full")]


async def test_a_replay_that_dies_behind_the_publish_leaves_the_letter_and_the_message(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(stage, "m1")
    replayer, published = await stage.factory.replayer(), list[str]()
    publish = replayer._producer.publish

    async def note(messages: Any) -> Any:
        published.extend(message.id for message in messages)
        return await publish(messages)

    async def die(_: object) -> None:
        raise Unavailable("it died here")

    monkeypatch.setattr(replayer._producer, "publish", note)
    monkeypatch.setattr(replayer._letters, "remove", die)
    with pytest.raises(Unavailable):
        await replayer.replay(REFUSED, dry_run=False)
    assert published == ["m1"]
    assert await stage.letters() == [("m1", "queue-full")]


async def test_letters_are_replayed_by_their_ids(stage: Stage) -> None:
    await bury(stage, "m1", "m2", "m3")
    replayer: Replayer = await stage.factory.replayer()
    done = await replayer.replay(set(DeadReason), ["m2", "m9"], dry_run=False)
    assert (done.replayed, done.passed_over, done.found) == (1, 2, {"m2"})
    assert sorted(id_ for id_, _ in await stage.letters()) == ["m1", "m3"]


Looking = Callable[[str], Awaitable[PubSubOutbox]]


@pytest.fixture
async def looking(stage: Stage) -> Looking:
    backend = await opened(stage.factory, PubSubBackend)
    return backend.outbox


async def announce(stage: Stage, *ids: str, user: str = EVE) -> None:
    await (await stage.factory.push_notifier()).publish([stage.message(id_, user) for id_ in ids])


async def all_of(outbox: PubSubOutbox) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    while page := await outbox.list(0, 100):
        found += [(entry.number, entry.id) for entry in page]
        assert {entry.recipient for entry in page} == {EVE}
        assert all("envelope" in json.loads(entry.command) for entry in page)
    return found


async def test_commands_that_were_looked_at_are_there_for_the_service_at_once(
    stores: PubSubStores, stage: Stage, looking: Looking
) -> None:
    await announce(stage, "m1", "m2", "m3")
    outbox = await looking(PUSH_READER)
    assert await all_of(outbox) == [(1, "m1"), (2, "m2"), (3, "m3")]
    await outbox.hand_back()
    assert [command.attributes["messageId"] for command in await stores.commands()] == ["m1", "m2", "m3"]


async def test_commands_that_are_taken_are_gone(stores: PubSubStores, stage: Stage, looking: Looking) -> None:
    await announce(stage, "m1", "m2", "m3")
    outbox = await looking(PUSH_READER)
    await all_of(outbox)
    await outbox.remove([1, 2])
    await outbox.hand_back()
    assert [command.attributes["messageId"] for command in await stores.commands()] == ["m3"]


async def test_a_subscription_that_cannot_be_looked_at_is_refused(stores: PubSubStores, looking: Looking) -> None:
    with pytest.raises(ConfigError, match=f"--subscription is missing.*it has {PUSH_READER}"):
        await looking("")
    with pytest.raises(ConfigError, match=f"subscriptions/other is missing.*it has {PUSH_READER}"):
        await looking("other")
    with pytest.raises(ConfigError, match=r"is a subscription of .*ingress-topic, and not of .*push-notifications"):
        await looking("ingress-sub")
    api = stores.api
    name, topic = api.subscription("by-push"), api.topic("push-notifications")
    endpoint = {"push_endpoint": "https://example.com/push"}
    await api.create("create_subscription", name, name=name, topic=topic, push_config=endpoint)
    with pytest.raises(ConfigError, match="sends its commands to an endpoint"):
        await looking("by-push")
    for subscription in (PUSH_READER, "by-push"):
        full = api.subscription(subscription)
        await api.call("delete_subscription", full, subscription=full)
    with pytest.raises(ConfigError, match="it has none, so every push command is dropped"):
        await looking("")
