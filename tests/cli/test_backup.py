"""``router backup`` and ``router restore`` on the command line; the rest is in ``tests/embedded/test_backup.py``."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.backends.embedded.schema import FILE_NAME, prepare
from router.cli.exits import Code
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.messages import DeadLetter
from tests.cli.conftest import BOB, NOW, PAYLOAD, Router, message
from tests.cli.test_queues import mail_for_bob

Inside = Callable[[Callable[[Factory], Awaitable[None]]], None]
pytestmark = pytest.mark.usefixtures("piped")


async def filled(factory: Factory) -> None:
    await mail_for_bob(factory)
    await (await factory.ingress_producer()).publish([message(4)])
    await (await factory.dead_letters()).publish([DeadLetter("x", BOB, DeadReason.QUEUE_FULL, "", b"", 1, NOW)])


def test_a_backup_says_what_it_holds_and_restores_it_elsewhere(
    router: Router, inside: Inside, data_dir: Path, tmp_path: Path
) -> None:
    inside(filled)
    file, other = tmp_path / "made.backup", tmp_path / "other"
    made = router("backup", str(file))
    assert re.fullmatch(
        rf"backed up 4 messages, 1 dead letter and 0 push commands to {file} \([\d.]+ KiB\)\n", made.stdout
    )
    checked = json.loads(router("restore", str(file), "--dry-run", "--json").stdout)
    assert set(checked) == {
        "file", "data_dir", "dry_run", "made_at", "router", "schema", "bytes", "ingress", "hot", "cold", "outbox",
        "dead_letters",
    }  # fmt: skip
    assert [checked[name] for name in ("dry_run", "ingress", "hot", "cold", "dead_letters")] == [True, 1, 3, 0, 1]
    assert checked["data_dir"] == str(data_dir)
    told = router("restore", str(file), ROUTER_EMBEDDED__DATA_DIR=str(other))
    assert told.returncode == 0
    assert "mail acknowledged since then is delivered again" in told.stdout
    assert PAYLOAD not in made.stdout + told.stdout
    shown = json.loads(router("inspect-queue", "bob", "--json", ROUTER_EMBEDDED__DATA_DIR=str(other)).stdout)
    assert [entry["id"] for entry in shown["messages"]] == ["id-003-bob", "id-001-bob", "id-002-bob"]


def test_a_backup_replaces_no_file_and_a_restore_no_database_unless_told(
    router: Router, data_dir: Path, tmp_path: Path
) -> None:
    prepare(data_dir)
    file = tmp_path / "made.backup"
    file.write_text("precious")
    refused = router("backup", str(file))
    assert (refused.returncode, file.read_text()) == (Code.DATA, "precious")
    assert "--overwrite" in refused.stderr
    assert router("backup", str(file), "--overwrite").returncode == 0
    refused = router("restore", str(file))
    assert (refused.returncode, "--overwrite" in refused.stderr) == (Code.CONFIG, True)
    assert router("restore", str(file), "--overwrite").returncode == 0


def test_what_cannot_be_backed_up_or_restored_is_refused(router: Router, data_dir: Path, tmp_path: Path) -> None:
    nowhere = router("backup", str(tmp_path / "made.backup"))
    assert (nowhere.returncode, f"there is no {FILE_NAME}" in nowhere.stderr) == (Code.CONFIG, True)
    assert not data_dir.exists()
    prepare(data_dir)
    assert router("backup", str(tmp_path / "no" / "folder")).returncode == Code.IO
    assert router("restore", str(tmp_path / "none")).returncode == Code.IO
    (tmp_path / "note").write_text("no database at all")
    refused = router("restore", str(tmp_path / "note"), "--dry-run")
    assert (refused.returncode, "not an intact backup" in refused.stderr) == (Code.DATA, True)
    others = {
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_ONLINE__KIND": "firestore",
        "ROUTER_COLD__KIND": "firestore",
        "ROUTER_PUSH__KIND": "pubsub",
        "GOOGLE_CLOUD_PROJECT": "test",
    }
    elsewhere = router("backup", str(tmp_path / "made.backup"), **others)
    assert elsewhere.returncode == Code.CONFIG
    assert "nothing of this configuration is kept in embedded.data_dir" in elsewhere.stderr
