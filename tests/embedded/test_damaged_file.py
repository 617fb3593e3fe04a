"""RACES 42: the file, or the disk under it, is damaged: said once, with its name, and never a fault of the mail."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.backends.embedded.database import Database, Operation
from router.backends.embedded.worker import InlineWorker
from router.errors import DataDirError, DataDirLost, Unavailable
from router.messages import Queued
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, running
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
PAGE = 4096


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
            await stage.producer.publish(stage.message(id_, user))
        async with running(stage):
            await eventually(stage, lambda: _has(stage, EVE, ["m2"]))
            assert await stage.letters() == []
            monkeypatch.undo()
            await eventually(stage, lambda: _has(stage, BOB, ["m1", "m3"]))
        assert await stage.letters() == []


async def _has(stage: Stage, user: str, ids: Sequence[str]) -> bool:
    return await stage.ids(user) == ids
