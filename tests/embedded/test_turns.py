"""Processes that write to one file: each has its turn, and is woken for it."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.backends.embedded import database as module
from router.backends.embedded import schema
from router.backends.embedded.database import Database, Operation
from router.backends.embedded.turns import FileTurns, Lead
from router.backends.embedded.worker import ThreadWorker
from router.errors import Unavailable

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0
INSERT = "INSERT INTO outbox (id, recipient, command, at) VALUES (?, '', x'', 0)"
HOLDER = """
import sys
from pathlib import Path
from router.backends.embedded.turns import FileTurns
turns = FileTurns(Path(sys.argv[1]))
print(turns.take(), flush=True)
sys.stdin.read()
"""


class Waiting:
    """One of several that wait; each with a thread, as in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.turns = FileTurns(path)
        self.has_it = threading.Event()
        assert not self.turns.take()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.turns.wait()
        self.has_it.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return schema.prepare(tmp_path)


@pytest.fixture
def first(path: Path) -> Iterator[FileTurns]:
    """It writes."""
    turns = FileTurns(path)
    assert turns.take()
    yield turns
    turns.close()


def insert(id_: str) -> Operation[int]:
    def run(db: sqlite3.Connection) -> int:
        return db.execute(INSERT, (id_,)).rowcount

    return run


async def _written(database: Database, id_: str) -> bool:
    """``False`` if it still waited when the last time-out ended."""
    try:
        await database.write(insert(id_))
    except Unavailable:
        return False
    return True


def test_a_turn_is_for_the_first_that_takes_it(path: Path, first: FileTurns) -> None:
    """One that waits may not even have been woken yet."""
    second = FileTurns(path)
    assert not second.take()
    first.leave()
    assert first.take()
    first.leave()
    second.wait_until_free()
    assert second.take()
    assert not first.take()


def test_who_has_written_waits_for_who_is_next(path: Path, first: FileTurns) -> None:
    """However soon it asks again: the one that is next may not even have been woken yet."""
    second = FileTurns(path)
    second.be_next()
    first.leave()
    assert not first.take(), "the second one is next"
    second.wait()  # it already is next: the lock is its own
    second.leave()
    first.wait()
    assert not FileTurns(path).take()


def test_who_waits_is_woken(path: Path, first: FileTurns) -> None:
    waiting = [Waiting(path) for _ in range(3)]
    assert not any(one.has_it.is_set() for one in waiting)
    first.leave()
    for _ in waiting:
        served = next(one for one in waiting if one.has_it.wait(EVENT_SECONDS if one is waiting[0] else 0))
        served.turns.leave()
        waiting.remove(served)


def test_the_lead_is_that_of_one_process_until_it_ends(tmp_path: Path) -> None:
    first, second = Lead(tmp_path / "leader.lock"), Lead(tmp_path / "leader.lock")
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


def test_a_turn_ends_with_its_process(path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        waiting = Waiting(path)
        holder.send_signal(signal.SIGKILL)
        assert waiting.has_it.wait(EVENT_SECONDS)


async def test_writers_of_two_processes_wait_without_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: float) -> None:
        raise AssertionError("slept")

    monkeypatch.setattr(time, "sleep", never)
    async with (
        Database(path, ThreadWorker, relaxed=True) as one,
        Database(path, ThreadWorker, relaxed=True) as other,
        asyncio.timeout(EVENT_SECONDS),
    ):

        async def write(database: Database, name: str) -> None:
            for number in range(100):
                await (database.write if number % 2 else database.write_ordered)(insert(f"{name}{number}"))

        await asyncio.gather(write(one, "a"), write(other, "b"), write(one, "c"))
        await asyncio.gather(one.fold(), other.fold(), write(one, "d"))
        assert one.read(lambda db: db.execute("SELECT count(*) FROM outbox").fetchone()) == (400,)


async def test_a_process_that_keeps_its_turn_stops_nobody_for_good(
    path: Path, first: FileTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is told that it failed, and what comes after that turn is written."""
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.01)
    async with Database(path, ThreadWorker, relaxed=True) as database, asyncio.timeout(EVENT_SECONDS):
        for name in ("a", "b"):
            with pytest.raises(Unavailable, match="locked by another process"):
                await database.write(insert(name))
        with pytest.raises(Unavailable):
            await database.probe()
        monkeypatch.undo()
        first.leave()
        while not await _written(database, "c"):
            pass
        await database.write(insert("d"))
        await database.probe()
        assert ("d",) in database.read(lambda db: db.execute("SELECT id FROM outbox").fetchall())


async def test_a_database_closes_while_another_process_keeps_its_turn(
    path: Path, first: FileTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.01)
    async with asyncio.timeout(EVENT_SECONDS):
        async with Database(path, ThreadWorker, relaxed=True) as database:
            with pytest.raises(Unavailable):
                await database.write(insert("a"))
        first.leave()
        another = FileTurns(path)
        if not another.take():
            another.wait()  # until the thread that waited has let it go


class Watching(FileTurns):
    """Looks at how much of the log is not in the file yet when the turn is taken for the end of a checkpoint."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._index = path.with_name(f"{path.name}-shm")
        self.left: list[int] = []
        """In pages of the log (https://www.sqlite.org/walformat.html)."""

    def wait(self) -> None:
        with self._index.open("rb") as index:
            frames, copied = struct.unpack("=16xI76xI", index.read(100))
        self.left.append(frames - copied)
        super().wait()


async def test_others_wait_for_no_copying_of_what_this_process_wrote(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a checkpoint shuts out all writers: what came while it ran is in the file by then."""
    async with Database(path, ThreadWorker, relaxed=True, turns=Watching) as database:
        folded, writing = database._folded, list[asyncio.Future[int]]()

        def write_meanwhile(error: BaseException | None) -> None:
            writing.append(asyncio.ensure_future(database.write(insert("meanwhile"))))
            asyncio.get_running_loop().call_soon(folded, error)

        monkeypatch.setattr(database, "_folded", write_meanwhile)
        await database.write(insert("before"))
        await database.fold()
        await asyncio.gather(*writing)
        assert isinstance(database._turns, Watching)
        assert database._turns.left == [0]
