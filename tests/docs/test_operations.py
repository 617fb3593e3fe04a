"""docs/operations.md: the command that makes a backup."""

from __future__ import annotations

import re
import sqlite3
from base64 import b64encode
from pathlib import Path

import pytest

from router.data_dir import IDEMPOTENCY_KEY, key_file
from tests.support.service import Router

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def backed_up(router: Router) -> Path:
    """The file that the command of the page writes, into a folder of this test's own."""
    (command,) = re.findall(r"^router (backup /backups/\S+) ", PAGE, re.MULTILINE)
    folder = router.data_dir.parent / "backups"
    folder.mkdir()
    name, file = command.replace("/backups", str(folder)).replace("$(date +%F)", "2026-12-01").split()
    router.cli(name, file)
    return Path(file)


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


def test_a_backup_beside_a_running_router_has_its_mail(router: Router) -> None:
    with router.running():
        id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello").strip()
        file = backed_up(router)
    copy = sqlite3.connect(file)
    assert any(id_ in line for line in copy.iterdump())
    copy.close()
    assert file.stat().st_mode & 0o077 == 0


def test_a_backup_has_nothing_of_what_was_deleted_and_no_key(router: Router) -> None:
    with router.running():
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "unmistakable" * 3000)
        secret = key_file(router.data_dir, IDEMPOTENCY_KEY).read_bytes()
        received = router.cli("listen", "--as", "bob", "--once", "--dir", str(router.data_dir.parent / "saved"))
        assert received
        copy = backed_up(router).read_bytes()
    assert b64encode(b"unmistakable" * 3000)[:60] not in copy
    assert secret not in copy
