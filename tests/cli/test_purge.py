"""``router purge``: what it asks and says; what it deletes is in ``tests/contract/purging.py``."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from router.backends.embedded.schema import prepare
from router.cli.exits import Code
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.messages import DeadLetter
from tests.cli.conftest import ALICE, BOB, NOW, PAYLOAD, Router, environment, message, route
from tests.cli.test_queues import disconnect_bob, mail_for_bob

Inside = Callable[[Callable[[Factory], Awaitable[None]]], None]
pytestmark = pytest.mark.usefixtures("piped")


async def filled(factory: Factory) -> None:
    await mail_for_bob(factory)
    await disconnect_bob(factory)
    await (await factory.ingress_producer()).publish([message(4)])
    for user in (BOB, ALICE):
        await (await factory.dead_letters()).publish([DeadLetter("x", user, DeadReason.QUEUE_FULL, "", b"", 1, NOW)])


def on_a_terminal(data_dir: Path, answer: bytes) -> tuple[int, str]:
    """What ``router purge bob`` says, and its exit code, when somebody answers it."""
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "router", "purge", "bob"]
    variables = environment(data_dir, COLUMNS="120", TERM="dumb")
    running = subprocess.Popen(command, env=variables, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    seen, answered = b"", False
    with os.fdopen(terminal, "r+b", buffering=0) as person, suppress(OSError):
        while part := person.read(65536):
            seen += part
            if b"[y/N]" in seen and not answered:
                answered = True
                person.write(answer)
    return running.wait(60), seen.decode()


def test_it_asks_on_a_terminal_and_needs_yes_elsewhere(router: Router, inside: Inside, data_dir: Path) -> None:
    inside(filled)
    unasked = router("purge", "bob")
    assert (unasked.returncode, "it cannot be undone" in unasked.stderr) == (Code.USAGE, True)
    code, said = on_a_terminal(data_dir, b"n\n")
    assert (code, "nothing was deleted" in said) == (Code.FAILURE, True)
    assert "3 queued messages and 0 live connections" in said
    shown = json.loads(router("inspect-queue", "--json").stdout)
    assert (shown["hot"]["messages"], shown["ingress"]["messages"], shown["dead_letters"]) == (3, 1, 2)


def test_it_says_what_it_deleted_and_repeats_nothing(router: Router, inside: Inside, data_dir: Path) -> None:
    async def alices(factory: Factory) -> None:
        await route(factory, message(9, ALICE))

    inside(filled)
    inside(alices)
    code, said = on_a_terminal(data_dir, b"y\n")
    assert code == Code.OK
    assert "deleted 4 queued messages of urn:sm:user:bob (1 not routed yet, 3 hot, 0 cold)" in said
    assert "1 dead letter," in said
    assert PAYLOAD not in said
    again = json.loads(router("purge", "bob", "--yes", "--json").stdout)
    assert again == {
        "user": BOB, "complete": True, "ingress": 0, "hot": 0, "cold": 0, "push_commands": 0, "dead_letters": 0,
        "records": 0, "connections": 0, "beyond_reach": [],
    }  # fmt: skip
    shown = json.loads(router("inspect-queue", "--json").stdout)
    assert (shown["hot"]["messages"], shown["ingress"]["messages"], shown["dead_letters"]) == (0, 0, 1)


def test_it_makes_nothing(router: Router, data_dir: Path) -> None:
    assert router("purge", "bob", "--yes").returncode == Code.CONFIG
    assert not data_dir.exists()
    prepare(data_dir)
    assert router("purge", "a b", "--yes").returncode == Code.USAGE
