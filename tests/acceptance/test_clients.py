"""``send`` and ``listen`` against running services, and the client under them."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.support.service import Router

WAIT_SECONDS = 30.0


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


@contextmanager
def started(router: Router, *arguments: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "router", *arguments]
    process = subprocess.Popen(command, env=router.environment, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def payloads(inbox: Path) -> set[bytes]:
    return {base64.b64decode(json.loads(file.read_bytes())["encryptedData"]) for file in inbox.glob("*.json")}


def waiting(router: Router) -> list[str]:
    return [message["id"] for message in json.loads(router.cli("inspect-queue", "bob", "--json"))["messages"]]


def settled(router: Router, count: int) -> list[str]:
    """The ids that wait for bob once there are ``count``; routing may take a moment after a 202."""
    for _ in range(20):
        if len(found := waiting(router)) >= count:
            break
    return found


def test_a_payload_from_a_file_arrives_byte_for_byte(router: Router, tmp_path: Path) -> None:
    payload = bytes(range(256)) * 40 + b"\r\n"
    (tmp_path / "payload").write_bytes(payload)
    with router.running():
        router.cli("send", "--as", "alice", "--to", "bob", "--data-file", str(tmp_path / "payload"))
        router.cli("send", "--as", "alice", "--to", "bob", "--data-file", "-", stdin=b"from a pipe\n")
        settled(router, 2)
        router.cli("listen", "--as", "bob", "--dir", str(tmp_path / "inbox"), "--once")
    assert payloads(tmp_path / "inbox") == {payload, b"from a pipe\n"}


def test_many_are_sent_in_order_and_the_bad_one_is_named(router: Router, tmp_path: Path) -> None:
    good = [json.dumps({"recipientId": "bob", "encryptedData": "AAAA", "priority": n}) for n in range(3)]
    (tmp_path / "one").write_text("\n".join(good[:2]) + "\n\n")
    (tmp_path / "two").write_text(good[2] + "\n{}\n" + good[0])
    with router.running():
        done = router.command("send", "--as", "alice", "--lines", str(tmp_path / "one"), str(tmp_path / "two"))
        ids = done.stdout.decode().split()
        assert settled(router, 3) == ids
    assert done.returncode == Code.DATA
    assert "envelope 4 of 5" in done.stderr.decode()
    assert len(ids) == 3


def test_a_bar_on_the_terminal_leaves_the_pipe_alone(router: Router, tmp_path: Path) -> None:
    (tmp_path / "many").write_text('{"recipientId": "bob"}\n' * 20)
    screen, terminal = pty.openpty()
    with router.running():
        arguments = ("send", "--as", "alice", "--lines", str(tmp_path / "many"), "--json")
        with started(router, *arguments, stderr=terminal) as process:
            os.close(terminal)
            printed, _ = process.communicate(timeout=WAIT_SECONDS)
            assert process.returncode == 0
        ids = [json.loads(line)["id"] for line in printed.splitlines()]
        assert len(set(ids)) == 20
        assert b"sending" in os.read(screen, 65536)
    os.close(screen)


def test_listen_finds_the_socket_of_separate_services(router: Router, tmp_path: Path) -> None:
    """The API and the sockets have a port each, and both are in the configuration."""
    with (
        router.running("serve-api"),
        router.running("serve-ws"),
        router.running("process"),
        started(router, "listen", "--as", "bob", "--dir", str(tmp_path / "inbox"), "--json") as listening,
    ):
        assert listening.stdout is not None
        while not json.loads(router.cli("inspect-queue", "bob", "--json"))["connections"]:
            assert listening.poll() is None, "listen has given up"
        id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "x").strip()
        assert json.loads(listening.stdout.readline())["id"] == id_


@pytest.mark.parametrize(
    "arguments", [("send", "--as", "alice", "--to", "bob", "--data", ""), ("listen", "--as", "bob", "--dir")]
)
def test_whoever_waits_for_a_router_is_told_so(router: Router, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    directory = [str(tmp_path / "inbox")] if arguments[-1] == "--dir" else []
    router.token("bob")  # a key that is made is told of, and is there now
    with started(router, *arguments, *directory) as process:
        assert process.stderr is not None
        told = process.stderr.readline().decode()
        assert "is it running? `router serve` starts it; trying again" in told
        assert str(router.api_port) in told or str(router.ws_port) in told
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == Code.INTERRUPTED


def test_listen_says_once_that_it_waits_and_then_that_it_is_connected(router: Router, tmp_path: Path) -> None:
    router.token("bob")
    with started(router, "listen", "--as", "bob", "--dir", str(tmp_path / "inbox")) as listening:
        assert listening.stderr is not None
        assert b"trying again" in listening.stderr.readline()
        with router.running():
            assert listening.stderr.readline().startswith(b"connected;")
        # Each outage is told of once more.
        assert b"trying again" in listening.stderr.readline()


def test_a_port_that_is_taken_is_one_line(router: Router, tmp_path: Path) -> None:
    with router.running():
        other = Router(tmp_path / "other")
        other.environment["ROUTER_SERVER__API_PORT"] = str(router.api_port)
        done = other.command("serve")
    assert done.returncode == Code.CONFIG
    (said,) = done.stderr.decode().splitlines()
    assert said.startswith(f"error: cannot listen on 127.0.0.1:{router.api_port}")


def test_listen_ends_when_nobody_reads_its_list(router: Router, tmp_path: Path) -> None:
    """It is no failure of the router's, which would be tried again for ever."""
    with router.running(), started(router, "listen", "--as", "bob", "--dir", str(tmp_path / "inbox")) as listening:
        assert listening.stdout is not None
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "one")
        assert listening.stdout.readline()
        listening.stdout.close()
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "two")
        assert listening.wait(WAIT_SECONDS) == Code.BROKEN_PIPE
        assert listening.stderr is not None
        assert listening.stderr.read().startswith(b"connected;")
        listening.stdout = None
        assert len(payloads(tmp_path / "inbox")) == 2
        assert len(settled(router, 1)) == 1, "what was not listed is not acknowledged"


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["plain", "json"])
def test_listen_saves_to_a_folder_whose_name_is_no_text(router: Router, tmp_path: Path, form: list[str]) -> None:
    inbox = tmp_path / "e\udcff"
    with router.running():
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "one")
        (id_,) = settled(router, 1)
        done = router.command("listen", "--as", "bob", "--dir", str(inbox), "--once", *form)
        assert (done.returncode, done.stderr) == (Code.OK, b"")
        assert payloads(inbox) == {b"one"}
        assert waiting(router) == []
    if form:
        assert json.loads(done.stdout)["path"] == rf"{tmp_path}/e\udcff/{id_}.json"
