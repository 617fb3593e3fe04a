"""What a machine may lack: said before anything is made, with what to do about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from router.cli.exits import Code
from tests.cli.conftest import environment

WITH_OLD_SQLITE = """
import sqlite3
sqlite3.sqlite_version_info, sqlite3.sqlite_version = (3, 36, 0), "3.36.0"
from router.cli import main
main()
"""


@pytest.mark.parametrize(
    "command", ["serve", "serve-api", "process", "setup", "setup --dry-run", "config check", "config check --json"]
)
def test_an_old_sqlite_is_told_before_anything_is_made(command: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    ended = run(command, data_dir)
    assert ended.returncode == Code.CONFIG
    assert "SQLite 3.37 or newer is needed, but this Python has 3.36.0" in ended.stdout + ended.stderr
    assert not data_dir.exists()


def test_doctor_finds_an_old_sqlite(tmp_path: Path) -> None:
    ended = run("doctor", tmp_path / "data")
    assert ended.returncode == Code.ERRORS
    assert "embedded.sqlite" in ended.stdout
    assert "this Python has 3.36.0" in ended.stdout


def test_an_old_sqlite_is_enough_where_nothing_is_embedded(tmp_path: Path) -> None:
    production = {
        "ROUTER_ONLINE__KIND": "redis",
        "ROUTER_ONLINE__URL": "redis://127.0.0.1:9",
        "ROUTER_COLD__KIND": "firestore",
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_PUSH__KIND": "pubsub",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcdef",
        "GOOGLE_CLOUD_PROJECT": "p",
    }
    assert run("config check", tmp_path / "data", **production).returncode == 0


WITHOUT_SHARED_MEMORY = """
import sqlite3
from router.backends.embedded import schema
schema._connect = lambda path: sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, isolation_level=None)
from router.cli import main
main()
"""


@pytest.mark.parametrize("command", ["serve", "serve-ws", "setup", "setup --dry-run", "config check"])
def test_missing_shared_memory_is_told_before_anything_is_made(command: str, tmp_path: Path) -> None:
    ended = run(command, tmp_path / "deep" / "data", WITHOUT_SHARED_MEMORY)
    assert ended.returncode == Code.CONFIG
    assert "no shared memory" in ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_doctor_finds_missing_shared_memory(tmp_path: Path, *, there: bool) -> None:
    if there:
        (tmp_path / "data").mkdir()
    ended = run("doctor", tmp_path / "data", WITHOUT_SHARED_MEMORY)
    assert ended.returncode == Code.ERRORS
    assert "embedded.shared_memory" in ended.stdout
    assert list(tmp_path.rglob("*")) == ([tmp_path / "data"] if there else [])


def run(
    command: str, data_dir: Path, program: str = WITH_OLD_SQLITE, **settings: str
) -> subprocess.CompletedProcess[str]:
    """``router`` on a machine as ``program`` makes it look."""
    return subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        env=environment(data_dir, **settings), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
