"""A database of an earlier version of the router is brought to this one's, with all that it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.backends.rules import State
from router.messages import Lane, Outcome
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
