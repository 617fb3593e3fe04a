"""``router trace``, and ``router inspect-queue`` with the id of a message, on what components have put there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from router.cli.exits import Code
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.ids import new_id
from router.messages import DeadLetter, Message
from tests.cli.conftest import BOB, NOW, PAYLOAD, Router, connect, message

Inside = Callable[[Callable[[Factory], Awaitable[None]]], None]
ID = new_id(NOW, bytes(range(10)))
UNKNOWN = new_id(NOW - 100 * 86_400_000_000, bytes(10))
FIELDS = {"at", "id", "given_at", "known", "messages", "unknown", "no_answer", "not_asked", "remembered"}


def sent(id_: str = ID, recipient: str = BOB) -> Message:
    first = message(1, recipient)
    return Message(id_, recipient, first.envelope, first.lane, False, NOW)


@pytest.fixture
def accepted(inside: Inside) -> None:
    """One message for bob, who is offline, and one in front of it."""

    async def accept(factory: Factory) -> None:
        await (await factory.ingress_producer()).publish([message(0), sent()])

    inside(accept)


@pytest.mark.usefixtures("accepted")
def test_it_says_where_a_message_is_and_what_holds_it_up(router: Router) -> None:
    shown = router("trace", ID)
    assert shown.returncode == Code.OK
    for text in (
        "in the cold queue",
        BOB,
        "accepted",
        "bob is offline",
        "no `router serve`, `serve-ws` or `process` runs on this data directory",
        "behind 1 message of the same lane",
    ):
        assert text in shown.stdout, text


@pytest.mark.usefixtures("accepted")
def test_its_json_is_whole_and_holds_neither_payload_nor_sender(router: Router) -> None:
    shown = json.loads(router("trace", ID, "--json").stdout)
    assert set(shown) == FIELDS
    assert (shown["id"], shown["known"], shown["unknown"]) == (ID, True, [])
    (found,) = shown["messages"]
    assert (found["recipient"], found["where"], found["lane"], found["announced"]) == (BOB, "cold", "normal", True)
    assert [one["event"] for one in found["events"]] == ["routed", "announced", "accepted"]  # NOW is yet to come
    assert [one["cause"] for one in found["held_up_by"]] == ["no-router", "recipient-offline", "push-waits", "behind"]
    assert shown["remembered"] == {
        "plain_seconds": 0, "keyed_seconds": 86_400, "queued_seconds": 30 * 86_400, "dead_letter_seconds": 30 * 86_400,
    }  # fmt: skip
    for arguments in (("trace", ID), ("trace", ID, "--json"), ("inspect-queue", ID)):
        assert PAYLOAD not in router(*arguments).stdout


@pytest.mark.usefixtures("accepted")
def test_an_unknown_id_is_told_with_how_long_it_would_be_remembered(router: Router) -> None:
    ended = router("trace", UNKNOWN)
    assert ended.returncode == Code.FAILURE
    assert f"Nothing is known of {UNKNOWN}" in ended.stdout
    assert "with an Idempotency-Key is remembered for 1 day, any other not at all" in ended.stdout
    told = json.loads(router("trace", UNKNOWN, "--json").stdout)
    assert (told["known"], told["messages"]) == (False, [])
    assert told["given_at"].startswith("2026-10-07T08:00:00")
    assert router("trace", ID, "--user", "alice").returncode == Code.FAILURE
    assert router("trace", ID, "--user", "bob").returncode == Code.OK


@pytest.mark.usefixtures("accepted")
def test_inspect_queue_knows_an_id_from_a_user(router: Router) -> None:
    shown = json.loads(router("inspect-queue", ID, "--json").stdout)
    assert set(shown) == FIELDS
    assert shown["messages"][0]["recipient"] == BOB
    assert "user" in json.loads(router("inspect-queue", f"urn:sm:user:{ID}", "--json").stdout)
    unknown = router("inspect-queue", UNKNOWN)
    assert (unknown.returncode, f"Nothing is known of {UNKNOWN}" in unknown.stdout) == (Code.OK, True)


def test_a_user_who_is_named_like_an_id_is_a_user(router: Router, inside: Inside) -> None:
    async def prepare(factory: Factory) -> None:
        await (await factory.ingress_producer()).publish([sent("m1", f"urn:sm:user:{ID}"), sent()])
        await connect(factory, f"urn:sm:user:{UNKNOWN}")

    inside(prepare)
    shown = json.loads(router("inspect-queue", ID, "--json").stdout)
    assert [one["id"] for one in shown["messages"]] == ["m1"]
    assert json.loads(router("inspect-queue", UNKNOWN, "--json").stdout)["user"] == f"urn:sm:user:{UNKNOWN}"


def test_a_dead_letter_is_found_by_its_id(router: Router, inside: Inside) -> None:
    async def refuse(factory: Factory) -> None:
        refused = sent()
        letter = DeadLetter(ID, BOB, DeadReason.QUEUE_FULL, "it is full", refused.envelope, 1, NOW)
        await (await factory.dead_letters()).publish([letter])

    inside(refuse)
    (found,) = json.loads(router("trace", ID, "--json").stdout)["messages"]
    assert (found["where"], [one["cause"] for one in found["held_up_by"]]) == ("dead-letter", ["refused"])
    assert "it is full" in found["held_up_by"][0]["text"]
    assert router("dead-letters", "discard", ID).returncode == Code.OK
    assert router("trace", ID).returncode == Code.FAILURE


def test_what_does_not_answer_may_know_it(router: Router, accepted: None) -> None:
    """Nothing listens at the online store's port."""
    del accepted
    redis = {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__URL": "redis://127.0.0.1:1/0"}
    ended = router("trace", UNKNOWN, "--json", **redis)
    assert ended.returncode == Code.UNAVAILABLE
    shown = json.loads(ended.stdout)
    assert [(one["role"], one["backend"]) for one in shown["no_answer"]] == [("online", "redis")]
    known = router("trace", ID, "--json", **redis)
    assert known.returncode == Code.OK
    assert json.loads(known.stdout)["messages"][0]["held_up_by"][0]["cause"] == "outage"


def test_firestore_needs_the_recipient(router: Router) -> None:
    firestore = {
        "ROUTER_ONLINE__KIND": "firestore",
        "GOOGLE_CLOUD_PROJECT": "p",
        "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
    }
    ended = router("trace", ID, **firestore)
    assert ended.returncode == Code.USAGE
    assert "finds a message only with its recipient" in ended.stderr
