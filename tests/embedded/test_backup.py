"""Backups: what is checked, what a restore refuses, and what a crash leaves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from router.backends.embedded import backup, schema
from router.config import Config, Embedded
from router.data_dir import alone, in_use
from router.errors import DataDirError, InvalidInput
from router.factory import Factory
from tests.support.clock import ManualClock

NOW = 1_800_000_000_000_000
SECONDS = 60


@contextmanager
def silent(_title: str, _unit: str, _total: int | None) -> Iterator[Callable[[int], None] | None]:
    yield None


def mark(data_dir: Path, number: int) -> sqlite3.Connection:
    """Write ``number`` to the database of ``data_dir``, into its log; the connection stays open."""
    connection = schema.open_writer(schema.prepare(data_dir))
    connection.execute("UPDATE clock SET at = ?", (number,))
    return connection


def marked(data_dir: Path) -> int:
    """What a router that starts now finds."""
    with closing(schema.open_writer(schema.prepare(data_dir))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (number,) = connection.execute("SELECT at FROM clock").fetchone()
        return int(number)


def backed_up(data_dir: Path, number: int) -> Path:
    """A backup of a database with this mark, beside ``data_dir``."""
    file = data_dir.with_suffix(".backup")
    with closing(mark(data_dir, number)):
        backup.make(data_dir / schema.FILE_NAME, file, NOW, silent)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return backed_up(tmp_path / "source", 7)


def test_a_backup_has_what_is_only_in_the_log_and_is_its_owners_alone(file: Path, tmp_path: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
    found = backup.check(file, silent)
    assert (found.schema, found.made_at, found.bytes) == (schema.VERSION, NOW, file.stat().st_size)
    assert backup.restore(file, tmp_path / "target", silent, overwrite=False) == found
    assert marked(tmp_path / "target") == 7
    with closing(sqlite3.connect(tmp_path / "target" / schema.FILE_NAME)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    assert "backup" not in tables
    assert (tmp_path / "target" / schema.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_backup_that_fails_leaves_what_was_there(file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    with pytest.raises(DataDirError, match="not an intact database"):
        backup.make(broken, file, NOW, silent)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_flipped_bit_is_found(file: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("INSERT INTO outbox (id, recipient, command, at) VALUES ('id', 'bob', ?, 1)", (b"\x55" * 1000,))
        db.execute("UPDATE backup SET digest = ?", (backup._digest(db, None),))
        db.commit()
    backup.check(file, silent)
    content = file.read_bytes()
    place = content.index(b"\x55" * 1000)
    for at in (0, 20, 63, 101, place, place + 500, content.index(b"CREATE TABLE hot")):
        damaged = bytearray(content)
        damaged[at] ^= 0x01
        file.write_bytes(damaged)
        with pytest.raises(InvalidInput, match=r"not an intact backup|newer version"):
            backup.restore(file, tmp_path / "target", silent, overwrite=False)
        assert not (tmp_path / "target" / schema.FILE_NAME).exists()


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, -2048])
def test_a_backup_that_was_cut_short_is_refused(file: Path, tmp_path: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InvalidInput, match=r"not an intact backup|not a backup"):
        backup.restore(file, tmp_path / "target", silent, overwrite=False)
    assert not (tmp_path / "target").exists() or not list((tmp_path / "target").glob("router.db*"))


def test_another_database_is_no_backup(tmp_path: Path) -> None:
    path = schema.prepare(tmp_path / "data")
    with pytest.raises(InvalidInput, match="`router backup`"):
        backup.restore(path, tmp_path / "target", silent, overwrite=False)
    assert not (tmp_path / "target").exists()
    with pytest.raises(FileNotFoundError):
        backup.restore(tmp_path / "none", tmp_path / "target", silent, overwrite=False)


def test_a_backup_of_a_newer_version_is_refused(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "VERSION", schema.VERSION - 1)
    with pytest.raises(InvalidInput, match="newer version of the router"):
        backup.restore(file, tmp_path / "target", silent, overwrite=False)
    with pytest.raises(DataDirError, match="newer version of the router"):
        backup.make(tmp_path / "source" / schema.FILE_NAME, tmp_path / "other", NOW, silent)
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "other").exists()


def test_a_backup_of_an_earlier_version_is_upgraded_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:-1])
        before.setattr(schema, "VERSION", schema.VERSION - 1)
        file = backed_up(tmp_path / "source", 3)
    backup.restore(file, tmp_path / "target", silent, overwrite=False)
    assert marked(tmp_path / "target") == 3


def test_a_database_is_replaced_only_on_demand(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mark(target, 1).close()
    with pytest.raises(DataDirError, match="--overwrite"):
        backup.restore(file, target, silent, overwrite=False)
    assert marked(target) == 1
    backup.restore(file, target, silent, overwrite=True)
    assert marked(target) == 7


@pytest.mark.anyio
async def test_nothing_is_restored_under_a_process_that_uses_the_directory(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    async with Factory(Config(embedded=Embedded(data_dir=target)), clock=ManualClock()) as factory:
        await factory.cold_queue()
        with pytest.raises(DataDirError, match="a router uses"):
            backup.restore(file, target, silent, overwrite=True)
    with alone(target):
        async with Factory(Config(embedded=Embedded(data_dir=target)), clock=ManualClock()) as factory:
            with pytest.raises(DataDirError, match="is being restored"):
                await factory.cold_queue()
    with in_use(target), in_use(target):
        pass
    backup.restore(file, target, silent, overwrite=True)
    assert marked(target) == 7


def test_nothing_is_restored_under_a_process_that_knows_no_locks(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an operator's ``sqlite3``: SQLite's own lock keeps its file in place."""
    monkeypatch.setattr(backup, "LOCK_SECONDS", 0)
    target = tmp_path / "target"
    with closing(mark(target, 1)):
        with pytest.raises(DataDirError, match="another process uses"):
            backup.restore(file, target, silent, overwrite=True)
        assert marked(target) == 1
    assert not list(target.glob(f"{backup.DRAFT}*"))


def test_a_log_that_is_left_alone_is_not_applied_to_what_is_restored(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    with closing(mark(target, 1)):
        log = (target / "router.db-wal").read_bytes()
    (target / "router.db").unlink()
    (target / "router.db-wal").write_bytes(log)
    with pytest.raises(DataDirError, match=r"move .* to another directory"):
        backup.restore(file, target, silent, overwrite=False)
    (target / "router.db-wal").unlink()
    backup.restore(file, target, silent, overwrite=False)
    assert marked(target) == 7


def test_a_damaged_database_is_not_touched(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mark(target, 1).close()
    (target / "router.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DataDirError, match=r"move .* to another directory"):
        backup.restore(file, target, silent, overwrite=True)
    assert (target / "router.db").read_bytes() == b"no database" * 1000


CRASH = """
import json, os, shutil, sys
from pathlib import Path
from router.backends.embedded import backup
from tests.embedded.test_backup import marked, silent

file, old, target = map(Path, sys.argv[1:])
found = []
while not found or found[-1][0] != 0:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(old, target)
    child = os.fork()
    if child == 0:
        steps = 0
        def kill(event, arguments):
            global steps
            if event in ("open", "os.rename", "os.remove", "sqlite3.connect") and str(target) in str(arguments[0]):
                steps += 1
                if steps > len(found):
                    os._exit(9)
        sys.addaudithook(kill)
        backup.restore(file, target, silent, overwrite=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found.append((code, marked(target)))
    if code:  # and after the crash it can be done again
        backup.restore(file, target, silent, overwrite=True)
        found[-1] += (marked(target), len(list(target.glob(".restore-*"))))
print(json.dumps(found))
"""


def test_a_crash_in_a_restore_leaves_the_old_state_or_the_new(file: Path, tmp_path: Path) -> None:
    """The old state is partly in a log, as a router that was killed leaves it."""
    old = tmp_path / "old"
    with closing(mark(tmp_path / "before", 1)):
        shutil.copytree(tmp_path / "before", old)
    assert (old / "router.db-wal").stat().st_size > 0
    command = [sys.executable, "-c", CRASH, str(file), str(old), str(tmp_path / "target")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True, env=dict(os.environ))
    crashed = json.loads(done.stdout)
    assert crashed.pop() == [0, 7]
    assert len(crashed) > 5
    assert {after for _, after, *_ in crashed} == {1, 7}
    assert [again for *_, again, left in crashed if left == 0] == [7] * len(crashed)
