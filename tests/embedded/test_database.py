"""The database file: group commits, and what can be wrong with a disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.backends.embedded.database import Database, Operation
from router.backends.embedded.worker import InlineWorker, ThreadWorker
from router.errors import DataDirError, StorageFull

pytestmark = pytest.mark.anyio
NOBODY = 65534
INSERT = "INSERT INTO outbox (id, recipient, command, at) VALUES (?, '', zeroblob(?), 0)"


@pytest.fixture(params=[ThreadWorker, InlineWorker])
async def database(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[Database]:
    del anyio_backend
    async with Database(schema.prepare(tmp_path), request.param, relaxed=True) as database:
        yield database


def insert(id_: str, size: int = 1) -> Operation[int]:
    def run(db: sqlite3.Connection) -> int:
        return db.execute(INSERT, (id_, size)).rowcount

    return run


def stored(database: Database) -> list[str]:
    return [id_ for (id_,) in database.read(lambda db: db.execute("SELECT id FROM outbox ORDER BY number").fetchall())]


async def test_writes_are_grouped_and_keep_their_order(database: Database) -> None:
    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    database._writer.set_trace_callback(count)
    writes = [database.write if number % 3 else database.write_ordered for number in range(100)]
    await asyncio.gather(*(write(insert(f"{number:03}")) for number, write in enumerate(writes)))
    assert stored(database) == [f"{number:03}" for number in range(100)]
    assert commits < 10


async def test_what_is_promised_is_synced(database: Database) -> None:
    levels: list[str] = []
    database._writer.set_trace_callback(
        lambda statement: levels.append(statement) if "synchronous" in statement else None
    )
    await database.write_ordered(insert("ordered"))
    await database.write(insert("synced"))
    assert [level.rpartition("=")[2] for level in levels] == ["NORMAL", "FULL"]
    assert database._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_an_ordered_write_waits_for_no_fsync_but_its_own_elders(database: Database) -> None:
    """A poke waits for its routing, which must not wait for the fsync of what was accepted after it."""
    statements: list[str] = []
    database._writer.set_trace_callback(lambda statement: statements.append(statement.split()[0]))
    await asyncio.gather(
        database.write_ordered(insert("routed")),
        database.write(insert("accepted")),
        database.write_ordered(insert("late")),
    )
    assert statements == [*("PRAGMA", "BEGIN", "INSERT", "COMMIT"), *("PRAGMA", "BEGIN", "INSERT", "INSERT", "COMMIT")]


async def test_one_failure_spares_the_group(database: Database) -> None:
    def fail(db: sqlite3.Connection) -> int:
        db.execute(INSERT, ("half done", 1))
        raise ZeroDivisionError

    results = await asyncio.gather(
        database.write(insert("a")),
        database.write(fail),
        database.write(insert("b")),
        return_exceptions=True,
    )
    assert isinstance(results[1], ZeroDivisionError)
    assert sorted(stored(database)) == ["a", "b"]


async def test_a_page_that_becomes_free_is_not_written_again(database: Database) -> None:
    assert database._writer.execute("PRAGMA secure_delete").fetchone() == (2,)


async def test_a_full_disk_is_said_and_nothing_is_lost(database: Database) -> None:
    await database.write(insert("before"))
    (pages,) = database._writer.execute("PRAGMA page_count").fetchone()
    database._writer.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StorageFull, match="full"):
        await database.write(insert("too big", 1_000_000))
    database._writer.execute("PRAGMA max_page_count=1073741823")
    await database.write(insert("after"))
    assert stored(database) == ["before", "after"]


async def test_readiness_knows_of_a_full_disk_until_there_is_room(database: Database) -> None:
    await database.probe()
    (pages,) = database._writer.execute("PRAGMA page_count").fetchone()
    database._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFull):
        await database.write(insert("too big", 1_000_000))
    levels = list[str]()
    database._writer.set_trace_callback(levels.append)
    await database.probe()
    assert any("user_version" in level for level in levels), "asked by a write, since the last one failed"
    levels.clear()
    await database.probe()
    assert levels == [], "a router that works is not made to write by those who ask"


async def test_an_error_that_an_operation_raises_is_not_taken_for_a_full_disk(database: Database) -> None:
    (pages,) = database._writer.execute("PRAGMA page_count").fetchone()
    database._writer.execute(f"PRAGMA max_page_count={pages}")

    def refuse(_: sqlite3.Connection) -> int:
        raise ZeroDivisionError

    with pytest.raises(StorageFull):
        await database.write(insert("too big", 1_000_000))
    with pytest.raises(ZeroDivisionError):
        await database.write(refuse)
    statements = list[str]()
    database._writer.set_trace_callback(statements.append)
    await database.probe()
    assert any("user_version" in statement for statement in statements), "still asked by a write"


async def test_a_damaged_file_stops_no_queue(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SQLite says, whoever writes is told, and so is the next one."""

    def damaged(_: object, level: str) -> None:
        error = sqlite3.DatabaseError(f"malformed at {level}")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_set_level", damaged)
        for name in ("a", "b"):
            async with asyncio.timeout(10):
                with pytest.raises(DataDirError, match="not an intact database"):
                    await database.write(insert(name))
    await database.write(insert("c"))
    assert stored(database) == ["c"]


async def test_another_process_is_waited_for(database: Database, tmp_path: Path) -> None:
    other = schema.open_writer(tmp_path / schema.FILE_NAME)
    other.execute("BEGIN IMMEDIATE")
    if isinstance(database._committer, InlineWorker):
        other.close()
        return
    writing = asyncio.ensure_future(database.write(insert("mine")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not writing.done()
    other.execute("COMMIT")
    await writing
    other.close()


async def test_the_log_is_folded_into_the_file(database: Database, tmp_path: Path) -> None:
    database._folded_at = -100_000
    await database.write(insert("a"))
    for number in range(50):
        await database.write(insert(f"b{number}"))
    assert not database._restart
    assert database._folded_at > 0
    assert len(stored(database)) == 51
    assert (tmp_path / schema.FILE_NAME).stat().st_size > 0


def test_modes_are_private(tmp_path: Path) -> None:
    path = schema.prepare(tmp_path / "deep" / "data")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_newer_file_is_refused_untouched(tmp_path: Path) -> None:
    path = schema.prepare(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(DataDirError, match="newer"):
        schema.prepare(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / schema.FILE_NAME).write_bytes(b"no database at all, " * 100)
    with pytest.raises(DataDirError, match="not an intact database"):
        schema.prepare(tmp_path)


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match="data_dir"):
        schema.prepare(tmp_path / "file" / "data")


@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_without_shared_memory_is_refused_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    """SQLite itself finds none: of this kind of file, it never maps one into memory."""
    data_dir = tmp_path / "deep" / "data"
    if there:
        data_dir.mkdir(parents=True)

    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?vfs=unix-dotfile", uri=True, isolation_level=None)

    monkeypatch.setattr(schema, "_connect", connect)
    with pytest.raises(DataDirError, match="no shared memory"):
        schema.prepare(data_dir)
    assert list(tmp_path.rglob("*")) == ([data_dir.parent, data_dir] if there else [])


def test_an_old_sqlite_is_refused_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    with pytest.raises(DataDirError, match=r"3\.37 or newer is needed, but this Python has 3\.36\.0"):
        schema.prepare(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def another_user() -> Iterator[Path]:
    """A directory that somebody who is not root may enter; as root, the test goes on as nobody."""
    root = os.geteuid() == 0
    # Above pytest's own directories nobody else may enter.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        if root:
            os.chown(directory, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        try:
            yield Path(directory)
        finally:
            if root:
                os.seteuid(0)
            Path(directory).chmod(0o700)


def test_a_read_only_directory_is_refused(another_user: Path) -> None:
    another_user.chmod(0o500)
    with pytest.raises(DataDirError, match="writable"):
        schema.prepare(another_user)


def test_a_directory_that_became_read_only_is_refused(another_user: Path) -> None:
    """The file is there and may be written, but not the log beside it."""
    schema.prepare(another_user)
    another_user.chmod(0o500)
    with pytest.raises(DataDirError, match="writable"):
        schema.prepare(another_user)


def test_a_read_only_file_is_refused(another_user: Path) -> None:
    schema.prepare(another_user).chmod(0o400)
    with pytest.raises(DataDirError, match="writable"):
        schema.prepare(another_user)
