"""The database file: group commits, and what can be wrong with a disk."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import database as database_module
from router.backends.embedded import schema
from router.backends.embedded.database import Database, Operation
from router.backends.embedded.worker import InlineWorker, ThreadWorker
from router.errors import DataDirError, StorageFull, Unavailable
from tests.embedded.steps import steps_of

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


async def test_what_is_promised_is_synced(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = steps_of(database, monkeypatch)
    await database.write_ordered(insert("ordered"))
    assert steps == ["BEGIN", "INSERT", "COMMIT"]
    await database.write(insert("synced"))
    assert steps[3:] == ["BEGIN", "INSERT", "COMMIT", "sync"]
    assert database._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # NORMAL: a checkpoint syncs the log, and then the file. So nothing leaves the log before it is on disk.
    assert database._writer.execute("PRAGMA synchronous").fetchone() == (1,)


class SlowDisk:
    """Each sync of a database waits until it is let go, or fails."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.over = threading.Semaphore(0), threading.Semaphore(0)
        self.error: OSError | None = None
        monkeypatch.setattr(database._log, "sync", self._sync)

    def _sync(self) -> None:
        self.begun.release()
        assert self.over.acquire(timeout=10), "somebody lets it go"
        if self.error is not None:
            raise self.error

    async def begins(self) -> None:
        """Return when a sync is under way."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=10), "a sync begins"


@pytest.mark.parametrize("database", [ThreadWorker], indirect=True)
async def test_an_ordered_write_waits_for_no_sync(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poke waits for its routing, which must not wait for the disk. What needs a sync waits for the next one, and
    shares a transaction."""
    disk = SlowDisk(database, monkeypatch)
    commits: list[str] = []
    database._writer.set_trace_callback(lambda said: commits.append(said) if said == "COMMIT" else None)
    first = asyncio.ensure_future(database.write(insert("first")))
    await disk.begins()
    await database.write_ordered(insert("routed"))
    assert stored(database) == ["first", "routed"], "it is there before it is on disk"
    assert not first.done(), "it is not promised yet"
    behind = [asyncio.ensure_future(database.write(insert(id_))) for id_ in ("second", "third")]
    await asyncio.sleep(0)
    assert len(commits) == 2, "they wait for the next sync"
    disk.over.release()
    await first
    await disk.begins()
    assert len(commits) == 3, "together"
    assert not any(one.done() for one in behind), "the sync that is over had begun before they were there"
    disk.over.release()
    await asyncio.gather(*behind)


@pytest.mark.parametrize("database", [ThreadWorker], indirect=True)
async def test_an_ordered_write_takes_along_what_waits_for_the_disk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(database, monkeypatch)
    first = asyncio.ensure_future(database.write(insert("first")))
    await disk.begins()
    second = asyncio.ensure_future(database.write(insert("second")))
    await asyncio.sleep(0)
    assert stored(database) == ["first"]
    await database.write_ordered(insert("third"))
    assert stored(database) == ["first", "second", "third"]
    disk.over.release()
    await first
    await disk.begins()
    assert not second.done(), "it came after the first sync had begun"
    disk.over.release()
    await second


async def test_a_patient_write_goes_with_the_next_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "PATIENCE_SECONDS", 3600)
    steps = steps_of(database, monkeypatch)
    patient = [asyncio.ensure_future(database.write(insert(id_), patient=True)) for id_ in ("a", "b")]
    for _ in range(10):
        await asyncio.sleep(0)
    assert steps == []
    await database.write(insert("c"))
    await asyncio.gather(*patient)
    assert steps == ["BEGIN", "INSERT", "INSERT", "INSERT", "COMMIT", "sync"]


async def test_a_patient_write_waits_for_no_other_in_vain(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (0.0, 0.001):
        monkeypatch.setattr(database_module, "PATIENCE_SECONDS", seconds)
        await database.write(insert(str(seconds)), patient=True)
    assert stored(database) == ["0.0", "0.001"]


async def test_a_database_that_closes_takes_patient_writes_along(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PATIENCE_SECONDS", 3600)
    async with Database(schema.prepare(tmp_path), ThreadWorker, relaxed=True) as database:
        patient = asyncio.ensure_future(database.write(insert("a"), patient=True))
        await asyncio.sleep(0)
    assert await patient == 1


@pytest.mark.parametrize(("code", "told"), [(errno.EIO, Unavailable), (errno.ENOSPC, StorageFull)])
async def test_nothing_is_promised_after_a_failed_sync_until_the_file_has_it(
    database: Database, monkeypatch: pytest.MonkeyPatch, code: int, told: type[Exception]
) -> None:
    """Linux tells of a page that it could not write once, and takes it for written from then on."""
    await database.write(insert("before"))
    with monkeypatch.context() as patch:
        disk = SlowDisk(database, patch)
        disk.error = OSError(code, "simulated")
        disk.over.release()
        with pytest.raises(told):
            await database.write(insert("unknown"))
    steps: list[str] = []
    database._writer.set_trace_callback(steps.append)
    await database.write(insert("after"))
    checkpoint, begin = (next(at for at, said in enumerate(steps) if word in said) for word in ("TRUNCATE", "BEGIN"))
    assert checkpoint < begin, "what the log may lack on disk is in the file first"
    assert stored(database) == ["before", "unknown", "after"]
    steps.clear()
    await database.write(insert("last"))
    assert not any("checkpoint" in said for said in steps), "once is enough"


async def test_a_failed_sync_is_not_forgotten_while_a_reader_holds_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await database.write(insert("before"))
    with closing(schema.open_reader(tmp_path / schema.FILE_NAME)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM outbox").fetchone()
        with monkeypatch.context() as patch:
            disk = SlowDisk(database, patch)
            disk.error = OSError(errno.EIO, "simulated")
            disk.over.release()
            with pytest.raises(Unavailable, match="check the system's log"):
                await database.write(insert("unknown"))
        with pytest.raises(Unavailable, match="another process reads it"):
            await database.write(insert("refused"))
        with pytest.raises(Unavailable, match="another process reads it"):
            await database.probe()
        other.execute("COMMIT")
    await database.probe()
    await database.write(insert("after"))
    assert stored(database) == ["before", "unknown", "after"]


@pytest.mark.parametrize("database", [ThreadWorker], indirect=True)
async def test_a_failed_sync_fails_what_was_committed_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also what waits for the lock of another process: it would go into a log that lacks something."""
    disk = SlowDisk(database, monkeypatch)
    first = asyncio.ensure_future(database.write(insert("first")))
    await disk.begins()
    second = asyncio.ensure_future(database.write(insert("second")))
    await database.write_ordered(insert("third"))
    with closing(schema.open_writer(tmp_path / schema.FILE_NAME)) as other:
        other.execute("BEGIN IMMEDIATE")
        late = asyncio.ensure_future(database.write_ordered(insert("late")))
        await asyncio.sleep(0)
        disk.error = OSError(errno.EIO, "simulated")
        disk.over.release()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable, Unavailable]
        steps: list[str] = []
        database._writer.set_trace_callback(steps.append)
        other.execute("COMMIT")
    await late
    assert "ROLLBACK" in steps[: steps.index("COMMIT")], "it began anew"
    assert any("TRUNCATE" in said for said in steps[: steps.index("COMMIT")])


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


class Damaged:
    """A connection to a file that is damaged wherever a transaction begins."""

    in_transaction = False

    def execute(self, statement: str) -> None:
        error = sqlite3.DatabaseError(f"malformed at {statement}")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    def __getattr__(self, name: str) -> int:
        assert name == "total_changes"
        return 0


async def test_a_damaged_file_stops_no_queue(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SQLite says, whoever writes is told, and so is the next one."""
    with monkeypatch.context() as patch:
        patch.setattr(database, "_writer", Damaged())
        for name in ("a", "b"):
            async with asyncio.timeout(10):
                with pytest.raises(DataDirError, match="not an intact database"):
                    await database.write(insert(name))
    await database.write(insert("c"))
    assert stored(database) == ["c"]


async def test_another_process_is_waited_for(database: Database, tmp_path: Path) -> None:
    other = schema.open_writer(tmp_path / schema.FILE_NAME)
    other.execute("BEGIN IMMEDIATE")
    if isinstance(database._waiter, InlineWorker):
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


async def test_a_log_of_few_large_rows_is_folded_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_BYTES", 500_000)
    begun: list[int] = []
    monkeypatch.setattr(database, "_begin_fold", lambda: begun.append(database._log.size()))
    while not begun and database._writer.total_changes < 1000:
        await database.write_ordered(insert("large", 10_000))
    assert begun
    assert begun[0] < 500_000 + 2 * database_module.LOOK_CHANGES * 20_000, "it is noticed soon"


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
