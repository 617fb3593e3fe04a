"""Dead letters and push commands of Pub/Sub, as an operator sees and replays them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from router.backends.google.channels import PUBSUB, open_channel
from router.backends.pubsub.bodies import dead_letter, push_command
from router.backends.pubsub.wire import PubSubApi, PubsubMessage
from router.cli.exits import Code
from router.config import Config
from router.dead_reasons import DeadReason
from router.messages import DeadLetter
from tests.cli.conftest import BOB, NOW, PAYLOAD, Router, message
from tests.support.servers import Server

Publish = Callable[..., None]


@pytest.fixture
def publish(
    router: Router,
    settings: dict[str, str],
    project: str,
    pubsub: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> Publish:
    """Publishes to a topic of what ``router setup`` has made, and makes a subscription for push commands."""
    assert router("setup", **settings).returncode == 0
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub.address)

    async def work(topic: str, messages: list[PubsubMessage]) -> None:
        async with await open_channel(PUBSUB, Config()) as channel:
            api = PubSubApi(channel, project, random.Random(1))
            name = api.subscription("notifications")
            await api.create("create_subscription", name, name=name, topic=api.topic("push-notifications"))
            await api.publish(api.topic(topic), messages)

    return lambda topic, *messages: asyncio.run(work(topic, list(messages)))


def refused(number: int, reason: DeadReason = DeadReason.QUEUE_FULL) -> PubsubMessage:
    said = message(number)
    return dead_letter(DeadLetter(said.id, BOB, reason, "full", said.envelope, 1, NOW - 10**15))


def test_dead_letters_are_shown_replayed_and_discarded(
    router: Router,
    settings: dict[str, str],
    publish: Publish,
) -> None:
    publish("ingress-topic-dlq", refused(1), refused(2), refused(3, DeadReason.DAMAGED))
    shown = router("dead-letters", "--json", **settings)
    letters = [json.loads(line) for line in shown.stdout.splitlines()]
    assert sorted(letter["id"] for letter in letters) == ["id-001-bob", "id-002-bob", "id-003-bob"]
    assert all(set(letter) == {"id", "recipient", "reason", "detail", "at", "bytes", "attempts"} for letter in letters)
    assert "subscription" in shown.stderr or "topic ingress-topic-dlq" in shown.stderr
    assert PAYLOAD not in shown.stdout
    assert len(router("dead-letters", "--limit", "2", "--json", **settings).stdout.splitlines()) == 2
    done = router("dead-letters", "replay", "id-003-bob", "id-009-bob", "--json", **settings)
    assert done.returncode == Code.DATA
    assert json.loads(done.stdout) == {
        "dry_run": False, "replayed": 1, "recipients": 1, "passed_over": 2, "remembered": 0, "unreadable": 0,
        "unknown": ["id-009-bob"],
    }  # fmt: skip
    assert router("dead-letters", "discard", "id-001-bob", **settings).returncode == 0
    left = [json.loads(line)["id"] for line in router("dead-letters", "--json", **settings).stdout.splitlines()]
    assert left == ["id-002-bob"]


def test_push_commands_are_shown_and_taken(
    router: Router,
    settings: dict[str, str],
    publish: Publish,
) -> None:
    publish("push-notifications", push_command(message(1)))
    unnamed = router("outbox", **settings)
    assert (unnamed.returncode, "it has notifications" in unnamed.stderr) == (Code.CONFIG, True)
    named = "--subscription", "notifications"
    assert router("outbox", *named, "--follow", **settings).returncode == Code.USAGE
    for arguments in ((), ("--take",)):
        (shown,) = router("outbox", *named, "--json", *arguments, **settings).stdout.splitlines()
        command = json.loads(shown)
        assert (command["number"], command["id"], command["recipient"]) == (1, "id-001-bob", BOB)
        assert command["command"]["recipientId"] == BOB
    assert router("outbox", *named, "--json", **settings).stdout == ""


def test_an_outbox_here_has_no_subscription(router: Router, data_dir: Path) -> None:
    del data_dir
    assert router("setup").returncode == 0
    refused = router("outbox", "--subscription", "notifications")
    assert (refused.returncode, "leave --subscription out" in refused.stderr) == (Code.CONFIG, True)
