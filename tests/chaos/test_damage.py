"""One bit of a stored copy is another, in the real stores; everything else of it stays as it was."""

from __future__ import annotations

import random
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import httpx
import pytest

from router.backends.embedded.schema import FILE_NAME, prepare
from router.backends.redis.keys import Keys, pack_body, pack_id, unpack_page
from router.checksum import checksum
from router.messages import Delivery, Lane, Message
from tests.chaos.damage import HEADER, Bodies, Documents, Stored, Table
from tests.sim.stores import flipped
from tests.support.redis_servers import client
from tests.support.servers import Server

ID, BOB, ENVELOPE = "427d17df-22e6-8fe0-9930-f8cad6756932", "urn:sm:user:bob", b"sealed by its sender"
WHOLE = Message(ID, BOB, ENVELOPE, Lane.NORMAL, False, 5, checksum=checksum(ID, BOB, ENVELOPE))
ROW = {"id": ID, "envelope": ENVELOPE, "lane": 1, "sequence": 1, "ephemeral": 0, "keyed": 0, "accepted_at": 5}
flip = partial(flipped, chance=random.Random(1))


def is_lost_in_between(stored: Stored, remove: Callable[[], object]) -> None:
    """A copy that somebody removes after it was read is not written again."""
    (copy,) = stored.copies()

    def change(envelope: bytes) -> bytes:
        remove()
        return flip(envelope)

    assert not stored.change(copy, change)
    assert stored.copies() == []


def spoil(stored: Stored, read: Callable[[], bytes], remove: Callable[[], object]) -> None:
    """What any store is asked for: the copy is found, one bit of it is another, and one that is gone stays gone."""
    (copy,) = stored.copies()
    assert (copy.id, read()) == (ID, ENVELOPE)
    assert stored.change(copy, flip)
    apart = int.from_bytes(ENVELOPE) ^ int.from_bytes(read())
    assert apart.bit_count() == 1
    remove()
    assert not stored.change(copy, flip)
    assert stored.copies() == []


@pytest.mark.parametrize("table", ["hot", "cold", "ingress"])
def test_in_the_embedded_file(tmp_path: Path, table: str) -> None:
    path = prepare(tmp_path)
    assert path == tmp_path / FILE_NAME

    def execute(statement: str, *values: object) -> list[tuple[bytes]]:
        with closing(sqlite3.connect(path)) as db, db:
            return db.execute(statement, values).fetchall()

    user = "recipient" if table == "ingress" else "user"
    (columns,) = zip(*execute(f"SELECT name FROM pragma_table_info('{table}')"), strict=True)
    row = {column: value for column, value in ROW.items() if column in columns} | {user: BOB}
    row |= {column: 0 for column in ("queued_at", "attempts") if column in columns}
    execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())
    spoil(
        Table(path, table),
        lambda: execute(f"SELECT envelope FROM {table}")[0][0],
        lambda: execute(f"DELETE FROM {table}"),
    )


def test_in_the_redis_that_is_the_master(redis: Server) -> None:
    bodies, id_, body = Keys("spoilt").of(BOB)[4], pack_id(ID), pack_body(Delivery(WHOLE, 1, 1), WHOLE, 7)
    with closing(client(redis)) as there:

        def read() -> bytes:
            stored = there.hget(bodies, id_)
            assert stored[:HEADER] == body[:HEADER], "times, flags and the checksum stay"
            (queued,) = unpack_page(BOB, [id_, b"1", stored], 0)
            return queued.message.envelope

        there.hset(bodies, id_, body)
        spoil(Bodies(lambda: redis, "spoilt"), read, lambda: there.delete(bodies))
        there.hset(bodies, id_, body)
        is_lost_in_between(Bodies(lambda: redis, "spoilt"), lambda: there.delete(bodies))


def test_where_no_redis_is_the_master_nothing_is(redis: Server) -> None:
    bodies = Keys("masterless").of(BOB)[4]
    with closing(client(redis)) as there:
        there.hset(bodies, pack_id(ID), pack_body(Delivery(WHOLE, 1, 1), WHOLE, 7))
        (copy,) = Bodies(lambda: redis, "masterless").copies()
        there.delete(bodies)
    nowhere = Bodies(lambda: None, "masterless")
    assert nowhere.copies() == []
    assert not nowhere.change(copy, flip)


def test_in_the_firestore_emulator(firestore: Server) -> None:
    root = "projects/spoilt/databases/(default)/documents"
    path = f"{root}/cold-queue/{BOB}/cold-queue-messages/{ID}"
    fields = {"envelope": {"bytesValue": b64encode(ENVELOPE).decode()}, "checksum": {"integerValue": "7"}}

    def commit(write: object) -> None:
        headers = {"authorization": "Bearer owner"}
        url = f"http://{firestore.address}/v1/{root}:commit"
        httpx.post(url, json={"writes": [write]}, headers=headers, timeout=20).raise_for_status()

    def read() -> bytes:
        headers = {"authorization": "Bearer owner"}
        found = httpx.get(f"http://{firestore.address}/v1/{path}", headers=headers, timeout=20).json()["fields"]
        assert found["checksum"] == fields["checksum"]
        return b64decode(found["envelope"]["bytesValue"])

    stored = Documents(firestore, "spoilt", "cold-queue-messages")
    commit({"update": {"name": path, "fields": fields}})
    spoil(stored, read, lambda: commit({"delete": path}))
    commit({"update": {"name": path, "fields": fields}})
    is_lost_in_between(stored, lambda: commit({"delete": path}))
