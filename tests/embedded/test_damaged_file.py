"""RACES 42: the file, or the disk under it, is damaged: said once, with its name, and never a fault of the mail."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.backends.embedded import schema, wal
from router.backends.embedded.database import Database, Operation
from router.backends.embedded.worker import InlineWorker
from router.errors import DataDirError, DataDirLost, Unavailable
from router.messages import Queued
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, running
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
PAGE = 2048


def failing(code: int) -> Operation[int]:
    def run(_: sqlite3.Connection) -> int:
        error = sqlite3.DatabaseError("simulated")
        error.sqlite_errorcode = code
        raise error

    return run


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR])
async def test_damage_is_an_outage_that_names_the_file(anyio_backend: str, tmp_path: Path, code: int) -> None:
    path = schema.prepare(tmp_path)
    async with Database(path, InlineWorker, relaxed=True) as database:
        with pytest.raises(Unavailable, match=re.escape(str(path))):
            database.read(failing(code))
        with pytest.raises(Unavailable, match=re.escape(str(path))):
            await database.write(failing(code))
        assert await database.write(lambda db: db.execute("DELETE FROM cold").rowcount) == 0, "the rest works"


async def test_a_service_does_not_start_on_a_damaged_file(anyio_backend: str, tmp_path: Path) -> None:
    stores = EmbeddedStores(tmp_path)
    async with staged(stores, ManualClock()) as before:
        for number in range(100):
            await before.go(f"m{number}")
    path = tmp_path / schema.FILE_NAME
    content = bytearray(path.read_bytes())
    at = content.rindex(before.message("m1").envelope) // PAGE * PAGE
    content[at : at + PAGE] = bytes(PAGE)
    path.write_bytes(content)
    with pytest.raises(DataDirError, match="router doctor") as refused:
        async with staged(stores, ManualClock()):
            pass
    assert str(path) in str(refused.value)


async def test_a_damaged_page_of_one_recipient_holds_up_no_other(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came in one batch."""
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        put = stage.cold.put

        async def damaged(messages: Sequence[Queued]) -> list[Queued]:
            if any(queued.message.recipient == BOB for queued in messages):
                raise DataDirLost("simulated")
            return await put(messages)

        monkeypatch.setattr(type(stage.cold), "put", lambda _, messages: damaged(messages))
        for id_, user in (("m1", BOB), ("m2", EVE), ("m3", BOB)):
            await stage.producer.publish([stage.message(id_, user)])
        async with running(stage):
            await eventually(stage, lambda: _has(stage, EVE, ["m2"]))
            assert await stage.letters() == []
            monkeypatch.undo()
            await eventually(stage, lambda: _has(stage, BOB, ["m1", "m3"]))
        assert await stage.letters() == []


async def _has(stage: Stage, user: str, ids: Sequence[str]) -> bool:
    return await stage.ids(user) == ids


def crashed(source: Path, copy: Path) -> Path:
    """What a kill leaves: the file and its log, with a commit for each message."""
    path = schema.prepare(source)
    with closing(schema.open_writer(path)) as db:
        for number in range(20):
            db.execute("INSERT INTO outbox (id, recipient, command, at) VALUES (?, '', zeroblob(9), 0)", (number,))
        copy.mkdir()
        for file in source.iterdir():
            if file.name.startswith(schema.FILE_NAME) and not file.name.endswith("-shm"):
                (copy / file.name).write_bytes(file.read_bytes())
    return copy / f"{schema.FILE_NAME}-wal"


@pytest.mark.parametrize(("at", "kept"), [(-1, 18), (40, 0), (20, 0)], ids=["late frame", "first frame", "header"])
def test_commits_that_a_damaged_log_has_lost_are_told(tmp_path: Path, at: int, kept: int) -> None:
    """RACES 42: SQLite ends its log at the first frame that is damaged, and says nothing of those behind it."""
    log = crashed(tmp_path / "one", tmp_path / "two")
    content = bytearray(log.read_bytes())
    content[at if at > 0 else len(content) - 5 * (PAGE + 24) + 30] ^= 1
    log.write_bytes(content)
    with capture_logs() as logged:
        path = schema.prepare(tmp_path / "two")
    with closing(schema.open_reader(path)) as db:
        (found,) = db.execute("SELECT count(*) FROM outbox").fetchone() if kept else (0,)
    assert found < 20
    assert [(line["log_level"], line["file"]) for line in logged] == [("warning", f"{path}-wal")]
    assert logged[0]["commits"] >= 20 - max(found, kept)


def test_a_damaged_last_commit_of_the_log_is_found(tmp_path: Path) -> None:
    log = crashed(tmp_path / "one", tmp_path / "two")
    content = bytearray(log.read_bytes())
    content[-5] ^= 1
    log.write_bytes(content)
    with capture_logs() as logged:
        schema.prepare(tmp_path / "two")
    assert [(line["log_level"], line["commits"]) for line in logged] == [("warning", 1)]


@pytest.mark.parametrize("cut", [0, 10, PAGE + 24])
def test_a_log_that_a_crash_cut_short_is_no_damage(tmp_path: Path, cut: int) -> None:
    """The commit that was being written has not been promised."""
    log = crashed(tmp_path / "one", tmp_path / "two")
    content = log.read_bytes()
    log.write_bytes(content[: len(content) - cut])
    with capture_logs() as logged:
        schema.prepare(tmp_path / "two")
    assert logged == []


def test_whoever_starts_waits_for_what_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at the log needs the lock, which another process on the same file may have."""
    waits = []

    def look(connection: sqlite3.Connection, *_: object) -> int:
        waits.append(connection.execute("PRAGMA busy_timeout").fetchone()[0])
        return 0

    monkeypatch.setattr(wal, "lost_commits", look)
    schema.prepare(tmp_path)
    assert waits == [10_000]
