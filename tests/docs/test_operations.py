"""docs/operations.md: the command that makes a backup."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from router.data_dir import IDEMPOTENCY_KEY, key_file
from tests.support.service import Router

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SECONDS = 60.0


def backed_up(directory: Path) -> subprocess.CompletedProcess[str]:
    (command,) = re.findall(r"^(umask 077; python3 -c .*)$", PAGE, re.MULTILINE)
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


def test_a_backup_beside_a_running_router_has_its_mail(router: Router) -> None:
    with router.running():
        id_ = router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello").strip()
        done = backed_up(router.data_dir)
    assert done.returncode == 0, done.stderr
    copy = sqlite3.connect(router.data_dir / "copy.db")
    assert any(id_ in line for line in copy.iterdump())
    copy.close()
    assert (router.data_dir / "copy.db").stat().st_mode & 0o077 == 0


def test_a_backup_has_nothing_of_what_was_deleted_and_no_key(router: Router) -> None:
    with router.running():
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "unmistakable" * 3000)
        secret = key_file(router.data_dir, IDEMPOTENCY_KEY).read_bytes()
        received = router.cli("listen", "--as", "bob", "--once", "--dir", str(router.data_dir.parent / "saved"))
        assert received
        backed_up(router.data_dir)
    copy = (router.data_dir / "copy.db").read_bytes()
    assert b64encode(b"unmistakable" * 3000)[:60] not in copy
    assert secret not in copy


def test_a_backup_where_no_router_keeps_its_data_fails(tmp_path: Path) -> None:
    assert backed_up(tmp_path).returncode != 0
    assert not (tmp_path / "router.db").exists()
