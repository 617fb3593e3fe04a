"""``router import-go``, as a process."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from redis import Redis

from router.cli.exits import Code
from tests.cli.conftest import BOB, Router
from tests.support.servers import Server

DATABASE = 8


@pytest.fixture
def settings(firestore: Server) -> dict[str, str]:
    return {"FIRESTORE_EMULATOR_HOST": firestore.address, "GOOGLE_CLOUD_PROJECT": f"old-{secrets.token_hex(6)}"}


@pytest.fixture
def url(redis: Server) -> str:
    """The old Redis, with two messages to bob, of which one cannot be read."""
    url = f"redis://{redis.address}/{DATABASE}"
    with Redis.from_url(url) as client:
        client.flushdb()
        envelope = {"recipientId": BOB, "encryptedData": "c2VhbGVk"}
        client.lpush(f"queue:{BOB}", json.dumps({"id": "m1", "envelope": envelope}), "broken")
    return url


def waiting(router: Router) -> list[str]:
    return [found["id"] for found in json.loads(router("inspect-queue", "bob", "--json").stdout)["messages"]]


def test_it_moves_mail_and_says_what_it_cannot_move(
    router: Router, settings: dict[str, str], url: str, data_dir: Path
) -> None:
    planned = router("import-go", "--redis", url, "--dry-run", **settings)
    assert planned.returncode == Code.DATA
    assert planned.stdout.startswith("would import 1 message of 1 user\nCannot be imported\n")
    assert f"queue:{BOB}" in planned.stdout
    assert not data_dir.exists(), "nothing is made for it"
    done = router("import-go", "--redis", url, "--delete", "--json", **settings)
    assert done.returncode == Code.DATA
    found = json.loads(done.stdout)
    assert (found["dry_run"], found["users"], found["imported"], found["deleted"]) == (False, 1, 1, 0)
    assert found["problems"] == [{"place": f"queue:{BOB}", "why": "the entry is not JSON with an id and an envelope"}]
    assert waiting(router) == ["m1"]


def test_it_deletes_when_all_is_imported(router: Router, settings: dict[str, str], url: str) -> None:
    with Redis.from_url(url) as client:
        client.lrem(f"queue:{BOB}", 1, "broken")
        assert router("import-go", "--redis", url, **settings).stdout == "imported 1 message of 1 user\n"
        again = router("import-go", "--redis", url, **settings)
        assert (again.returncode, again.stdout) == (0, "imported 0 messages of 0 users\nimported before: 1\n")
        deleted = router("import-go", "--redis", url, "--delete", **settings)
        assert "deleted 1 message from the old stores" in deleted.stdout
        assert client.keys("*") == []
    assert waiting(router) == ["m1"]


def test_a_message_over_the_limits_is_for_another_run(router: Router, settings: dict[str, str], url: str) -> None:
    with Redis.from_url(url) as client:
        client.lset(f"queue:{BOB}", 0, json.dumps({"id": "m2", "envelope": {"recipientId": BOB}}))
    ended = router("import-go", "--redis", url, "--delete", ROUTER_LIMITS__QUEUE_MESSAGES="1", **settings)
    assert ended.returncode == Code.TEMPORARY
    assert f"limits.queue_messages, queue_bytes or inbound_bytes admit: {BOB}" in ended.stdout
    assert "nothing is deleted" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--dry-run", "--delete"], Code.USAGE, "cannot be combined"),
        (["--redis", "localhost:6379"], Code.CONFIG, "--redis must be a redis://"),
        (["--redis", "redis://127.0.0.1:1"], Code.UNAVAILABLE, "imported 0 messages; run it again"),
    ],
)
def test_a_wrong_call_is_said(
    router: Router, settings: dict[str, str], arguments: list[str], code: Code, word: str
) -> None:
    ended = router("import-go", *arguments, **settings)
    assert (ended.returncode, word in ended.stderr, "Traceback" in ended.stderr) == (code, True, False), ended.stderr


def test_without_a_project_it_says_so(router: Router, tmp_path: Path) -> None:
    ended = router("import-go", GOOGLE_CLOUD_PROJECT="", GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "none"))
    assert ended.returncode == Code.CONFIG
    assert "--project" in ended.stderr
