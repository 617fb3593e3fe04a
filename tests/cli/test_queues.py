"""The commands that look at queues and repair them, on what the components themselves have put there."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt
import pytest

from router.backends.embedded.schema import prepare
from router.cli.common import timestamp
from router.cli.exits import Code
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.messages import DeadLetter, Lane, Queued
from tests.cli.conftest import ALICE, BOB, NOW, PAYLOAD, Router, connect, environment, message, route

Inside = Callable[[Callable[[Factory], Awaitable[None]]], None]

pytestmark = pytest.mark.usefixtures("piped")
"""Of what steps have filled, and others may work at."""


async def mail_for_bob(factory: Factory) -> None:
    """Bob is online with three hot messages, one of them express."""
    await connect(factory, BOB)
    await route(factory, message(1), message(2), message(3, lane=Lane.EXPRESS))


async def disconnect_bob(factory: Factory) -> None:
    online = await factory.online_store()
    await online.disconnect(await online.connections(BOB))


def test_inspect_shows_a_user_in_the_order_of_a_fetch(router: Router, inside: Inside) -> None:
    async def prepare(factory: Factory) -> None:
        await (await factory.cold_queue()).put([Queued(message(0), sequence=1, queued_at=NOW)])
        await mail_for_bob(factory)

    inside(prepare)
    shown = json.loads(router("inspect-queue", "bob", "--json").stdout)
    assert set(shown) == {"at", "user", "connections", "hot", "cold", "messages", "more"}
    assert [(m["id"], m["tier"], m["lane"]) for m in shown["messages"]] == [
        ("id-003-bob", "hot", "express"),
        ("id-000-bob", "cold", "normal"),
        ("id-001-bob", "hot", "normal"),
        ("id-002-bob", "hot", "normal"),
    ]
    assert set(shown["messages"][0]) == {
        "id", "lane", "tier", "sequence", "bytes", "queued_at", "age_seconds", "attempts", "ephemeral", "announced",
    }  # fmt: skip
    assert (shown["hot"]["messages"], shown["cold"]["messages"], shown["more"]) == (3, 1, False)
    (connection,) = shown["connections"]
    assert set(connection) == {"id", "node", "since", "lease_seconds"}
    assert 0 < connection["lease_seconds"] <= 60


def test_inspect_limits_and_says_so(router: Router, inside: Inside) -> None:
    inside(mail_for_bob)
    shown = json.loads(router("inspect-queue", "bob", "--json", "--limit", "2").stdout)
    assert [m["id"] for m in shown["messages"]] == ["id-003-bob", "id-001-bob"]
    assert shown["more"] is True


def test_inspect_prints_no_payload_and_changes_nothing(router: Router, inside: Inside) -> None:
    """RACES 40."""
    inside(mail_for_bob)
    plain = router("inspect-queue", "bob")
    assert "id-001-bob" in plain.stdout
    assert "\t" not in plain.stdout
    again = router("inspect-queue", "bob", "--json")
    assert PAYLOAD not in plain.stdout + again.stdout
    assert len(json.loads(again.stdout)["messages"]) == 3


def test_inspect_of_an_unknown_user(router: Router, data_dir: Path) -> None:
    prepare(data_dir)
    shown = router("inspect-queue", "nobody")
    assert shown.returncode == 0
    assert "nothing queued" in shown.stdout
    assert "offline" in shown.stdout


def test_inspect_totals_and_oldest(router: Router, inside: Inside) -> None:
    async def prepare(factory: Factory) -> None:
        await mail_for_bob(factory)
        await (await factory.cold_queue()).put([Queued(message(9, ALICE), sequence=1, queued_at=NOW - 60_000_000)])
        await (await factory.ingress_producer()).publish([message(10, ALICE)])
        await (await factory.dead_letters()).publish([DeadLetter("x", BOB, DeadReason.QUEUE_FULL, "", b"", 1, NOW)])

    inside(prepare)
    shown = json.loads(router("inspect-queue", "--json").stdout)
    assert set(shown) == {
        "at", "ingress", "hot", "cold", "online_users", "connections", "dead_letters", "oldest",
    }  # fmt: skip
    assert [shown[tier]["messages"] for tier in ("ingress", "hot", "cold")] == [1, 3, 1]
    assert (shown["online_users"], shown["connections"], shown["dead_letters"]) == (1, 1, 1)
    assert {(queue["user"], queue["tier"], queue["messages"]) for queue in shown["oldest"]} == {
        (ALICE, "cold", 1),
        (BOB, "hot", 3),
    }
    assert router("inspect-queue").stdout.startswith("Queues\n")


def test_migrate_moves_a_named_user_who_is_online(router: Router, inside: Inside) -> None:
    inside(mail_for_bob)
    assert router("migrate", "bob", "--dry-run").stdout == "would move 3 messages of 1 user\n"
    assert router("migrate", "bob").stdout == "moved 3 messages of 1 user\n"
    assert router("migrate", "bob").stdout == "moved 0 messages of 1 user\n"
    shown = json.loads(router("inspect-queue", "bob", "--json").stdout)
    assert [m["tier"] for m in shown["messages"]] == ["cold"] * 3
    assert [m["id"] for m in shown["messages"]] == ["id-003-bob", "id-001-bob", "id-002-bob"]


def test_migrate_stale_leaves_those_who_are_online(router: Router, inside: Inside) -> None:
    async def prepare(factory: Factory) -> None:
        await mail_for_bob(factory)
        await disconnect_bob(factory)
        await connect(factory, ALICE)
        await route(factory, message(5, ALICE), message(6, ALICE, ephemeral=True))

    inside(prepare)
    planned = json.loads(router("migrate", "--stale", "--dry-run", "--json").stdout)
    assert planned == {"dry_run": True, "users": 1, "moved": 3, "dropped": 0, "busy": [], "online": []}
    done = router("migrate", "--stale", "--json")
    assert json.loads(done.stdout) == {**planned, "dry_run": False}
    rest = json.loads(router("migrate", "--all", "--json").stdout)
    assert rest["users"] == 1
    assert rest["moved"] == 1


def test_migrate_says_that_another_is_at_work(router: Router, inside: Inside) -> None:
    """RACES 22: a person at the command line."""

    async def prepare(factory: Factory) -> None:
        await mail_for_bob(factory)
        await (await factory.online_store()).begin_move(BOB, "another", 1, 1000, online_too=True)

    inside(prepare)
    ended = router("migrate", "bob")
    assert ended.returncode == Code.TEMPORARY
    assert BOB in ended.stdout


def test_outbox_prints_commands_and_take_removes_them(router: Router, inside: Inside) -> None:
    async def prepare(factory: Factory) -> None:
        await (await factory.push_notifier()).publish([message(1), message(2, ALICE)])

    inside(prepare)
    listed = router("outbox")
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["id-001-bob", "id-002-ice"]
    assert PAYLOAD not in listed.stdout
    taken = [json.loads(line) for line in router("outbox", "--json", "--take").stdout.splitlines()]
    assert [set(entry) for entry in taken] == [{"number", "id", "recipient", "at", "command"}] * 2
    assert taken[0]["command"]["recipientId"] == BOB
    assert taken[0]["command"]["envelope"]["encryptedData"] == PAYLOAD
    assert router("outbox", "--json").stdout == ""


def test_a_command_that_the_reader_never_got_is_kept(router: Router, inside: Inside, data_dir: Path) -> None:
    async def prepare(factory: Factory) -> None:
        await (await factory.push_notifier()).publish([message(1)])

    inside(prepare)
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "router", "outbox", "--json", "--take"],
        env=environment(data_dir),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == Code.BROKEN_PIPE
    assert len(router("outbox", "--json").stdout.splitlines()) == 1


def test_outbox_follows(inside: Inside, data_dir: Path) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "router", "outbox", "--json", "--follow", "--take"],
        env=environment(data_dir),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:

        async def prepare(factory: Factory) -> None:
            await (await factory.push_notifier()).publish([message(1)])

        inside(prepare)
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["id"] == "id-001-bob"
    finally:
        following.terminate()
        following.communicate()


def test_outbox_of_another_kind_is_refused(router: Router) -> None:
    ended = router("outbox", ROUTER_PUSH__KIND="none")
    assert ended.returncode == Code.CONFIG
    assert "error: " in ended.stderr


@pytest.mark.parametrize("with_body", [True, False])
def test_dead_letters(router: Router, inside: Inside, *, with_body: bool) -> None:
    async def prepare(factory: Factory) -> None:
        letter = DeadLetter("the-id", BOB, DeadReason.ATTEMPTS_EXHAUSTED, "no luck", b"sealed", 5, NOW)
        await (await factory.dead_letters()).publish([letter])

    inside(prepare)
    (letter,) = map(json.loads, router("dead-letters", "--json", *["--body"] * with_body).stdout.splitlines())
    expected = {"number", "id", "recipient", "reason", "detail", "at", "bytes", "attempts"}
    assert set(letter) == expected | ({"body"} if with_body else set())
    assert (letter["id"], letter["reason"], letter["bytes"], letter["attempts"]) == (
        "the-id",
        "attempts-exhausted",
        6,
        5,
    )
    assert base64.b64decode(letter.get("body", "c2VhbGVk")) == b"sealed"
    assert letter["at"].endswith("Z")
    assert "attempts-exhausted" in router("dead-letters").stdout


def test_dead_letters_are_replayed(router: Router, inside: Inside) -> None:
    """RACES 48: the message is in its queue again, under its id; the letter is gone, and others stay."""

    def letter(number: int, reason: DeadReason, body: bytes = b"") -> DeadLetter:
        refused = message(number)
        return DeadLetter(refused.id, BOB, reason, "", body or refused.envelope, 1, NOW)

    async def refuse(factory: Factory) -> None:
        letters = [letter(1, DeadReason.QUEUE_FULL), letter(2, DeadReason.DAMAGED), letter(3, DeadReason.UNDECODABLE)]
        await (await factory.dead_letters()).publish(letters)

    async def refuse_what_is_cut(factory: Factory) -> None:
        await (await factory.dead_letters()).publish([letter(4, DeadReason.QUEUE_FULL, b"{")])

    async def look(factory: Factory) -> None:
        (queued,) = await (await factory.message_queue()).fetch(BOB, 9)
        assert (queued.message.id, queued.message.envelope) == ("id-001-bob", message(1).envelope)

    inside(refuse)
    counts = {"recipients": 1, "passed_over": 2, "remembered": 0, "unreadable": 0, "unknown": []}
    tried = router("dead-letters", "replay", "--dry-run", "--json")
    assert json.loads(tried.stdout) == {"dry_run": True, "replayed": 1, **counts}
    assert len(router("dead-letters", "--json").stdout.splitlines()) == 3
    assert json.loads(router("dead-letters", "replay", "--json").stdout) == {"dry_run": False, "replayed": 1, **counts}
    inside(look)
    assert "replayed 0 dead letters" in router("dead-letters", "replay").stdout
    young = router("dead-letters", "replay", "--reason", "damaged")
    assert (young.returncode, "left 1 that are too young" in young.stdout) == (Code.TEMPORARY, True)
    assert router("dead-letters", "replay", "--reason", "undecodable").returncode == Code.USAGE
    inside(refuse_what_is_cut)
    assert router("dead-letters", "replay").returncode == Code.DATA
    assert len(router("dead-letters", "--json").stdout.splitlines()) == 3


def test_dead_letters_are_discarded(router: Router, inside: Inside) -> None:
    def letter(id_: str, recipient: str, reason: DeadReason, at: int = NOW) -> DeadLetter:
        return DeadLetter(id_, recipient, reason, "", b"sealed", 1, at)

    async def refuse(factory: Factory) -> None:
        letters = [
            letter("full", BOB, DeadReason.QUEUE_FULL),
            letter("full-of-eve", ALICE, DeadReason.QUEUE_FULL, NOW + 10**6),
            letter("damaged", BOB, DeadReason.DAMAGED),
            letter("cut", "", DeadReason.UNDECODABLE),
            letter("twice", BOB, DeadReason.DAMAGED),
            letter("twice", ALICE, DeadReason.DAMAGED, NOW + 10**6),
        ]
        await (await factory.dead_letters()).publish(letters)

    def left() -> list[str]:
        return [json.loads(line)["id"] for line in router("dead-letters", "--json").stdout.splitlines()]

    def discard(*arguments: str) -> tuple[int, dict[str, object]]:
        ended = router("dead-letters", "discard", *arguments, "--json")
        return ended.returncode, json.loads(ended.stdout)

    inside(refuse)
    everything = ["full", "full-of-eve", "damaged", "cut", "twice", "twice"]
    tried = discard("--all", "--dry-run")
    assert tried == (0, {"dry_run": True, "discarded": 6, "recipients": 3, "left": 0, "unknown": []})
    assert left() == everything
    later = timestamp(NOW + 10**6)
    done = discard("--reason", "queue-full", "--before", later)
    assert done == (0, {"dry_run": False, "discarded": 1, "recipients": 1, "left": 5, "unknown": []})
    assert left() == everything[1:]
    unknown = {"dry_run": False, "discarded": 2, "recipients": 2, "left": 3, "unknown": ["nobody's"]}
    assert discard("twice", "nobody's") == (Code.DATA, unknown), "what is known goes all the same"
    told = router("dead-letters", "discard", "nobody's")
    assert told.returncode == Code.DATA
    assert told.stdout.splitlines() == ["discarded 0 dead letters of 0 recipients, left 3"]
    assert told.stderr.splitlines()[-1] == "no dead letter has the id nobody's"
    assert discard("--reason", "damaged", "--reason", "undecodable")[1]["discarded"] == 2
    assert left() == ["full-of-eve"]
    assert "discarded 1 dead letters of 1 recipients, left 0" in router("dead-letters", "discard", "--all").stdout
    assert left() == []


def test_token(router: Router) -> None:
    printed = router("token", "bob", "--ttl", "1h30m", "--handle", "urn:sm:user:robert").stdout.strip()
    claims = jwt.decode(printed, options={"verify_signature": False})
    assert (claims["sub"], claims["handle"]) == (BOB, "urn:sm:user:robert")
    assert claims["exp"] - claims["iat"] == 5400


def test_token_is_refused_where_an_identity_service_issues_them(router: Router) -> None:
    ended = router("token", "bob", ROUTER_AUTH__JWKS_URL="https://id.example/jwks")
    assert ended.returncode == Code.CONFIG
    assert "identity service" in ended.stderr
    assert ended.stdout == ""


def test_setup_makes_what_is_missing_and_nothing_twice(router: Router, data_dir: Path) -> None:
    def states(*options: str) -> set[str]:
        return {step["state"] for step in json.loads(router("setup", "--json", *options).stdout)}

    assert states("--dry-run") == {"missing"}
    assert not data_dir.exists()
    assert states() == {"made"}
    assert states() == {"there"}
    modes = {path.name: path.stat().st_mode & 0o777 for path in data_dir.rglob("*") if path.is_file()}
    assert set(modes) >= {"router.db", "token-key.pem", "idempotency-key"}
    assert set(modes.values()) == {0o600}
    assert data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
@pytest.mark.parametrize("command", [["serve"], ["process"], ["outbox", "--take"], ["token", "bob"]])
def test_a_directory_of_another_user_is_refused(router: Router, data_dir: Path, command: list[str]) -> None:
    router("setup")
    os.chown(data_dir, 4711, 4711)
    ended = router(*command)
    assert ended.returncode == Code.CONFIG
    assert f"{data_dir} belongs to user 4711, and this process runs as user 0: chown -R 0 {data_dir}" in ended.stderr


def on_a_terminal(data_dir: Path, *arguments: str) -> str:
    """What a person sees: output and errors of ``router`` go to a terminal."""
    terminal, inner = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "router", *arguments],
        env=environment(data_dir, COLUMNS="120", TERM="xterm"),
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    seen = b""
    interrupted = "--watch" not in arguments
    with os.fdopen(terminal, "rb", buffering=0) as reader, contextlib.suppress(OSError):
        while part := reader.read(65536):
            seen += part
            if b"Oldest queues" in seen and not interrupted:
                interrupted = True  # a second one may end an interpreter that is ending already
                running.send_signal(signal.SIGINT)
    assert running.wait(30) in (Code.OK, Code.INTERRUPTED)
    return seen.decode()


def test_tables_and_progress_on_a_terminal(inside: Inside, data_dir: Path) -> None:
    inside(mail_for_bob)
    table = on_a_terminal(data_dir, "inspect-queue", "bob")
    assert "id-003-bob" in table
    assert "─" in table
    assert "Traceback" not in on_a_terminal(data_dir, "inspect-queue", "--watch")
    moved = on_a_terminal(data_dir, "migrate", "--all")
    assert "moving to cold" in moved
    assert "moved 3 messages of 1 user" in moved
