"""``router bench`` as a user runs it, against a real router and against one that breaks a promise."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from router.auth.embedded import EmbeddedKey
from router.bench.ledger import Fault
from router.bench.report import Report
from router.cli.exits import Code
from router.clock import SystemClock
from tests.support.edge import eventually, server
from tests.support.faulty_router import FaultyRouter
from tests.support.service import Router

WAIT_SECONDS = 30.0
TOKEN = "eyJ"
"""How every JWT begins."""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """One running router for all tests that do it no harm."""
    started = Router(tmp_path_factory.mktemp("router") / "data")
    with started.running():
        yield started


@contextmanager
def started(router: Router, *arguments: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "router", "bench", *arguments]
    process = subprocess.Popen(command, env=router.environment, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def nothing_left(router: Router) -> bool:
    found = json.loads(router.cli("inspect-queue", "--json"))
    return [found[tier]["messages"] for tier in ("ingress", "hot", "cold")] == [0, 0, 0]


def test_bench_runs_with_the_default_options(router: Router) -> None:
    done = router.command("bench", "--seconds", "0.4", "--json")
    assert (done.returncode, done.stderr) == (Code.OK, b"")
    document = json.loads(done.stdout)
    found = msgspec.json.decode(done.stdout, type=Report)
    assert document == json.loads(msgspec.json.encode(found)), "the documented fields and no others"
    assert (found.people, found.offline, found.senders, found.message_bytes) == (20, 0, 8, 1024)
    assert found.held
    assert found.messages.offered == found.messages.accepted == found.messages.saved > 0
    assert found.latency.accepted is not None
    assert 0 < found.latency.accepted.p50 <= found.latency.accepted.p99 <= found.latency.accepted.max
    assert found.per_second.accepted == pytest.approx(found.messages.accepted / found.seconds)
    assert TOKEN.encode() not in done.stdout


def test_users_of_a_file_the_cold_path_and_a_rate_on_a_terminal(router: Router, tmp_path: Path) -> None:
    key = EmbeddedKey.open(router.data_dir)
    names = [f"urn:sm:user:load-{number}" for number in range(4)]
    lines = [f"{name} {key.sign(name, SystemClock().now(), 600)}\n" for name in names]
    (tmp_path / "users.txt").write_text("# four\n\n" + "".join(lines))
    screen, terminal = pty.openpty()
    arguments = ("--tokens", str(tmp_path / "users.txt"), "--messages", "40", "--rate", "200", "--offline", "0.5")
    with started(router, *arguments, stderr=terminal) as process:
        os.close(terminal)
        printed, _ = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == Code.OK
    text = printed.decode()
    assert "to 4 people, 2 of them offline" in text
    assert "200 a second" in text
    assert "saved, from offline  20" in text
    assert text.endswith("Every promise held: 40 messages arrived, once, in order.\n")
    assert TOKEN not in text
    assert b"sending" in os.read(screen, 65536)
    os.close(screen)


def test_ctrl_c_ends_the_sending_and_still_reports(router: Router) -> None:
    before = router.metric("router_messages_accepted_total")
    with started(router, "--seconds", "60", "--rate", "50", "--json") as process:
        while router.metric("router_messages_accepted_total") == before:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == Code.INTERRUPTED
    found = msgspec.json.decode(printed, type=Report)
    assert found.interrupted
    assert found.held
    assert found.messages.saved == found.messages.accepted > 0
    assert errors.decode().startswith("stopped sending")
    assert nothing_left(router), "of any run on this router"


@pytest.mark.anyio
async def test_a_broken_promise_has_its_code(router: Router) -> None:
    faulty = FaultyRouter(Fault.LOST)
    async with server(faulty.app) as listening:
        url = f"http://127.0.0.1:{listening.port}"
        arguments = ("bench", "--url", url, "--people", "2", "--messages", "10", "--patience", "0.2")
        done = await asyncio.to_thread(router.command, *arguments)
    assert done.returncode == Code.BROKEN_PROMISE
    assert b"BROKEN: 2 lost" in done.stdout
    assert done.stderr == b""


@pytest.mark.anyio
async def test_a_second_ctrl_c_ends_at_once_and_says_what_is_left(router: Router) -> None:
    faulty = FaultyRouter(Fault.LOST)
    async with server(faulty.app) as listening:
        url = f"http://127.0.0.1:{listening.port}"
        with started(router, "--url", url, "--people", "2", "--messages", "10", "--patience", "600") as process:
            assert process.stderr is not None
            await eventually(lambda: len(faulty.sends) == 10)
            process.send_signal(signal.SIGTERM)
            assert b"stopped sending" in await asyncio.to_thread(process.stderr.readline)
            process.send_signal(signal.SIGINT)
            said = await asyncio.to_thread(process.stderr.read)
            # Two are lost; others may have been on their way.
            assert re.match(rb"left in the router: ([2-9]|10) messages, of urn:sm:bench:", said)
            assert await asyncio.to_thread(process.wait, WAIT_SECONDS) == Code.INTERRUPTED


def token(claims: Mapping[str, str]) -> str:
    import jwt  # noqa: PLC0415 - only here

    return jwt.encode(dict(claims), "k" * 32, algorithm="HS256")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process, where it ends before it connects: its code, and what it said."""

    def run(*arguments: str) -> tuple[int, str]:
        from router.cli import _run  # noqa: PLC0415 - as the entry point does

        monkeypatch.setattr(sys, "argv", ["router", "bench", *arguments])
        return _run(), capsys.readouterr().err

    return run


def test_without_the_embedded_key_it_asks_for_tokens(
    told: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTER_AUTH__JWKS_URL", "http://127.0.0.1:1/jwks")
    code, said = told()
    assert code == Code.CONFIG
    assert said.startswith("error: auth.kind is jwks")
    assert "--tokens" in said


def test_a_router_with_another_key(
    router: Router, told: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUTER_EMBEDDED__DATA_DIR", str(tmp_path))
    code, said = told("--url", router.url)
    assert code == Code.DENIED
    assert "embedded.data_dir" in said
    assert "--tokens" in said


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("", "holds no users"),
        ("bob\n", "line 1: write a user, a space, and a token"),
        ("# one\nbob secret.secret.secret\n", "line 2: write a user, a space, and a token"),
        (f"bob {token({'sub': 'eve'})}\n", "the token belongs to urn:sm:user:eve, not to urn:sm:user:bob"),
        (f"bob {token({'sub': 'bob', 'handle': 'eve'})}\n", "the token belongs to urn:sm:user:eve"),
        (f"bob {token({'sub': 'bob'})}\n" * 2, "names a user twice"),
    ],
)
def test_a_file_that_holds_no_tokens_is_told_without_them(
    lines: str, word: str, tmp_path: Path, told: Callable[..., tuple[int, str]]
) -> None:
    file = tmp_path / "users.txt"
    file.write_text(lines)
    code, said = told("--tokens", str(file))
    assert code == Code.DATA
    assert word in said
    assert "secret" not in said
    assert TOKEN not in said


def test_more_people_than_the_file_has(tmp_path: Path, told: Callable[..., tuple[int, str]]) -> None:
    file = tmp_path / "users.txt"
    file.write_text(f"bob {token({'sub': 'bob'})}\n")
    code, said = told("--tokens", str(file), "--people", "2")
    assert code == Code.USAGE
    assert "has 1 users" in said
