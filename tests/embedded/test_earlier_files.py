"""A database of an earlier version of the router is brought to this one's, with all that it knows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.lifecycle import State
from router.messages import DeadLetter, Lane, Outcome
from tests.contract.bounds import LIMIT, has_room
from tests.contract.stage import BOB, EVE, staged
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio


def made_by(data_dir: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a router with this version of the schema makes in ``data_dir``."""
    with monkeypatch.context() as before:
        before.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:version])
        before.setattr(schema, "VERSION", version)
        return schema.prepare(data_dir)


async def test_a_file_in_which_an_id_was_one_users_keeps_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hot, cold and acknowledged mail is known under its ids, which others may have too."""
    path = made_by(tmp_path, 6, monkeypatch)
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


WAITING = """
    INSERT INTO route VALUES ('hot', :bob, 1, 1, 0, 0, NULL), ('cold', :bob, 1, 2, 2, 0, NULL),
        ('on its way', :bob, 1, 3, 1, 0, NULL), ('acked', :bob, 1, 4, 3, 0, 1);
    INSERT INTO hot (id, user, lane, sequence, queued_at, accepted_at, ephemeral, keyed, attempts, envelope)
        VALUES ('hot', :bob, 1, 1, 1, 1, 0, 0, 1, zeroblob(100));
    INSERT INTO cold (id, user, lane, sequence, queued_at, accepted_at, keyed, attempts, envelope)
        VALUES ('cold', :bob, 1, 2, 1, 1, 0, 1, zeroblob(200));
    INSERT INTO ingress (id, recipient, lane, ephemeral, keyed, accepted_at, envelope)
        VALUES ('on its way', :bob, 1, 0, 0, 1, zeroblob(300));
    INSERT INTO recipient (user, sequence, hot, cold, pending) VALUES (:bob, 4, 1, 2, 1);
"""
"""In version 7, which counted no bytes."""


async def test_what_waited_before_bytes_were_counted_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In hot, in cold and on its way there; each gives back what it takes."""
    path = made_by(tmp_path, 7, monkeypatch)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(WAITING.replace(":bob", f"'{BOB}'"))
    async with staged(EmbeddedStores(tmp_path), ManualClock(), limits={"queue_bytes": LIMIT}) as stage:
        waiting = 600
        for id_, size in (("cold", 200), ("on its way", 300), ("hot", 100)):
            await has_room(stage, LIMIT - waiting)
            await stage.online.ack(BOB, [id_])
            waiting -= size
        await has_room(stage, LIMIT)


async def test_dead_letters_that_were_there_before_the_cap_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made_by(tmp_path, 10, monkeypatch)
    with closing(sqlite3.connect(path)) as connection, connection:
        for id_, recipient, size in (("a", BOB, 1000), ("b", BOB, 1000), ("c", EVE, 1500)):
            row = (id_, recipient, size)
            connection.execute(
                "INSERT INTO dead_letter (id, recipient, reason, detail, attempts, at, body) "
                "VALUES (?, ?, 'queue-full', '', 1, 1, zeroblob(?))",
                row,
            )
    config = EmbeddedStores(tmp_path).config()
    small = config.embedded.model_copy(update={"dead_letter_bytes": 3500 + 3 * 1024})
    async with Factory(config.model_copy(update={"embedded": small}), clock=ManualClock()) as factory:
        await (await factory.dead_letters()).publish([DeadLetter("d", EVE, DeadReason.DAMAGED, "", b"", 1, 1)])
        assert [letter.id for _, letter in await (await factory.dead_letter_box()).list(0, 9)] == ["b", "c", "d"]
