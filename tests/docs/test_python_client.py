"""docs/python-client.md: its examples are run as they stand there, in an empty folder against a real router."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import router.client
from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from router.errors import RouterError
from tests.support.service import Router

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()
EXAMPLES = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SECONDS = 60.0
"""A test that takes so long waits for what doesn't come."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    started = Router(tmp_path_factory.mktemp("router") / "data")
    with started.running():
        yield started


@contextmanager
def running(name: str, service: Router, directory: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    users = {user.upper(): service.token(user) for user in ("alice", "bob")}
    process = subprocess.Popen(
        [sys.executable, "-c", EXAMPLES[name]],
        cwd=directory,
        env={**service.environment, "ROUTER": service.url, **users, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def output(name: str, service: Router, directory: Path, **more: str) -> list[str]:
    with running(name, service, directory, **more) as process:
        printed, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, printed
    return printed.splitlines()


def test_sending_and_receiving(service: Router, tmp_path: Path) -> None:
    received, counted = output("first", service, tmp_path)
    assert received.endswith("b'sealed bytes'")
    assert counted == "1 message(s)"


def test_the_inbox_has_what_it_says(service: Router, tmp_path: Path) -> None:
    sent = [service.cli("send", "--as", "alice", "--to", "bob", "--data", "waiting").strip()]
    with running("inbox", service, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"saved {sent[0]}\n"
        sent.append(service.cli("send", "--as", "alice", "--to", "bob", "--data", "poked").strip())
        assert process.stdout.readline() == f"saved {sent[1]}\n"
        while json.loads(service.cli("inspect-queue", "bob", "--json"))["messages"]:
            assert process.poll() is None
    with closing(sqlite3.connect(tmp_path / "inbox.db")) as inbox:
        mail = inbox.execute("SELECT id, envelope FROM mail ORDER BY place").fetchall()
    assert [id_ for id_, _ in mail] == sent
    assert [router.client.Envelope.from_json(raw).encrypted_data for _, raw in mail] == [b"waiting", b"poked"]


def test_the_outbox_ends_with_what_may_still_go(service: Router, tmp_path: Path) -> None:
    assert output("outbox", service, tmp_path) == ["accepted", "accepted", "give up: 400 invalid-envelope"]


def test_a_token_that_has_expired_is_asked_for_again(service: Router, tmp_path: Path) -> None:
    """The identity service is down, then gives one that has expired, then good ones; or only such as have expired."""
    key, now = EmbeddedKey.open(service.data_dir), SystemClock().now()
    expired, good = key.sign("eve", now - 3600 * 10**6, 60), key.sign("eve", now, 600)
    cases: list[tuple[list[str | None], str]] = [
        ([None, expired, good], "0 message(s) wait"),
        ([expired, expired], "sign in again: "),
    ]
    for answers, printed in cases:
        outage = ["no token: the identity service answers 503"] if None in answers else []
        with identity(answers) as url:
            *troubles, last = output("tokens", service, tmp_path, IDENTITY=url)
        assert last.startswith(printed)
        assert [trouble.partition(": ")[2] for trouble in troubles] == outage
        assert answers == []


@contextmanager
def identity(answers: list[str | None]) -> Iterator[str]:
    """The URL of a service that gives ``answers``, which it empties; ``None`` is an outage."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            token = answers.pop(0)
            body = json.dumps({"access_token": token}).encode()
            self.send_response(503 if token is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_every_exception_is_under_one_root_and_has_its_row() -> None:
    exported = {name: getattr(router.client, name) for name in router.client.__all__}
    raised = {name for name, what in exported.items() if isinstance(what, type) and issubclass(what, RouterError)}
    rows = set(re.findall(r"^\| `(\w+)`.*\|.*\|.*\|$", PAGE.partition("## Exceptions")[2], re.MULTILINE))
    assert rows == raised - {"RouterError"}


def test_every_call_is_in_the_table() -> None:
    public = {name for name in vars(router.client.RouterClient) if not name.startswith("_")}
    assert public == set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
