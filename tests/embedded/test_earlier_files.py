"""A database of an earlier version of the router is brought to this one's, with all that it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.backends.rules import State
from router.messages import Lane, Outcome
from tests.contract.bounds import LIMIT, has_room
from tests.contract.stage import BOB, EVE, staged
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio


async def test_a_file_in_which_an_id_was_one_users_keeps_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot, cold and acknowledged mail is known under its ids, which others may have too."""
    with monkeypatch.context() as before:
        before.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:6])
        before.setattr(schema, "VERSION", 6)
        path = schema.prepare(tmp_path)
    now = ManualClock().now()
    with closing(sqlite3.connect(path)) as connection, connection:
        places = [("hot", State.HOT, None), ("cold", State.COLD, None), ("acked", State.ACKED, now + 10**9)]
        for sequence, (id_, state, until) in enumerate(places):
            row = (id_, BOB, Lane.NORMAL, sequence, state, 0, until)
            connection.execute("INSERT INTO route VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for table, columns in (("hot", "ephemeral,"), ("cold", "")):
            connection.execute(
                f"INSERT INTO {table} (user, lane, sequence, id, queued_at, accepted_at, {columns} keyed, attempts, "
                f"envelope) VALUES (?, 1, ?, ?, ?, ?, {'0,' * bool(columns)} 0, 1, x'7b7d')",
                (BOB, table == "cold", table, now, now),
            )
        connection.execute("INSERT INTO recipient (user, sequence, hot, cold) VALUES (?, 3, 1, 1)", (BOB,))
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        assert await stage.ids() == ["hot", "cold"]
        for id_ in ("hot", "cold", "acked"):
            assert await stage.go(id_, EVE) is Outcome.COLD
        known = [await stage.go(id_) for id_ in ("hot", "cold", "acked")]
        assert known == [Outcome.DUPLICATE, Outcome.ANNOUNCE, Outcome.DUPLICATE]
        await stage.queue.acknowledge(BOB, ["hot", "cold"])
        assert (await stage.ids(), await stage.ids(EVE)) == ([], ["hot", "cold", "acked"])


async def test_what_waited_before_bytes_were_counted_is_counted(tmp_path: Path) -> None:
    """In hot, in cold and on its way there; each gives back what it takes."""
    limits = {"queue_bytes": LIMIT}
    async with staged(EmbeddedStores(tmp_path), ManualClock(), limits=limits) as stage:
        await stage.go("cold", size=100)
        on_its_way = stage.message("on its way", size=200)
        await stage.producer.publish(on_its_way)
        await stage.route(on_its_way)
        await stage.connect()
        await stage.go("hot", size=300)
    with closing(sqlite3.connect(tmp_path / schema.FILE_NAME)) as connection, connection:
        for table, column in (("route", "size"), ("recipient", "hot_bytes"), ("recipient", "cold_bytes")):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 7")
    async with staged(EmbeddedStores(tmp_path), ManualClock(), limits=limits) as stage:
        waiting = 600
        for id_, size in (("cold", 100), ("on its way", 200), ("hot", 300)):
            await has_room(stage, LIMIT - waiting)
            await stage.queue.acknowledge(BOB, [id_])
            waiting -= size
        await has_room(stage, LIMIT)
