"""What is acknowledged is gone: from the tables, the free pages, the indexes and the log."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import schema
from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.keeper import FOLD_SECONDS, Keeper
from router.checksum import checksum
from router.messages import Message
from tests.contract.stage import Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
NAME = "urn:sm:user:an-unmistakable-name"
DAY = 86_400


@pytest.fixture(params=["at once", "by a pipeline"])
def way(request: pytest.FixtureRequest) -> str:
    """How mail is routed: as it is accepted, or in steps."""
    if request.param != "at once":
        request.getfixturevalue("piped")
    return str(request.param)


@pytest.fixture
async def stage(tmp_path: Path, way: str) -> AsyncIterator[Stage]:
    del way  # sets how the factory makes the ingress
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=10_000) as stage:
        yield stage


@pytest.fixture
async def keeper(stage: Stage) -> Keeper:
    return (await opened(stage.factory, EmbeddedBackend)).keeper()


def on_disk(directory: Path, mark: bytes) -> dict[str, int]:
    """How often ``mark`` is in each file."""
    found = {path.name: path.read_bytes().count(mark) for path in directory.iterdir() if path.is_file()}
    return {name: count for name, count in found.items() if count}


def mail(stage: Stage, count: int, size: int) -> list[Message]:
    body = os.urandom(32).hex().encode() * (size // 64)
    names = [(f"m{number:05}", f"{NAME}-{number % 7}") for number in range(count)]
    return [
        Message(id_, user, body, stage.message("x").lane, False, stage.clock.now(), False, checksum(id_, user, body))
        for id_, user in names
    ]


async def pass_through(stage: Stage, messages: list[Message]) -> None:
    """All that becomes of mail for somebody who is offline."""
    consumer = await stage.factory.ingress_consumer()
    await asyncio.gather(*(stage.producer.publish([message]) for message in messages))
    backlog = await stage.producer.backlog()
    got, waiting = 0, backlog.messages if backlog is not None else 0
    while got < waiting:
        deliveries = await consumer.receive(1000)
        for message, routed in zip(messages, await stage.online.route(deliveries), strict=True):
            await stage.store(message, routed)
        await (await stage.factory.push_notifier()).publish(messages)
        await consumer.ack(deliveries)
        got += len(deliveries)
    for user in {message.recipient for message in messages}:
        while ids := await stage.ids(user):
            await stage.queue.acknowledge(user, ids)


@pytest.mark.parametrize("size", [640, 9600], ids=["small", "of several pages"])
async def test_payloads_are_gone_with_the_next_round(stage: Stage, keeper: Keeper, tmp_path: Path, size: int) -> None:
    messages = mail(stage, 300, size)
    await pass_through(stage, messages)
    mark = messages[0].envelope[:64]
    assert on_disk(tmp_path, mark), "the log holds what the file holds no more"
    stage.clock.advance(FOLD_SECONDS)
    await keeper.look()
    assert on_disk(tmp_path, mark) == {}


async def test_names_and_ids_are_gone_when_their_time_is_over(stage: Stage, keeper: Keeper, tmp_path: Path) -> None:
    await pass_through(stage, mail(stage, 300, 640))
    for number in range(7):
        connection = await stage.connect(f"{NAME}-{number}")
        await stage.online.disconnect([connection])
    assert on_disk(tmp_path, NAME.encode())
    stage.clock.advance(DAY + 1)
    for _ in range(3):
        await stage.online.purge(100, stage.clock.now())
    stage.clock.advance(FOLD_SECONDS)
    await keeper.look()
    assert on_disk(tmp_path, NAME.encode()) == {}
    assert on_disk(tmp_path, b"m00123") == {}


async def test_the_log_is_emptied_while_others_write_and_read(stage: Stage, keeper: Keeper, tmp_path: Path) -> None:
    """Acknowledged by another process, and under load: the next rounds find it."""
    log = tmp_path / f"{schema.FILE_NAME}-wal"
    await stage.go("m1")
    with closing(schema.open_reader(tmp_path / schema.FILE_NAME)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM cold").fetchone()
        await stage.go("m2")
        stage.clock.advance(FOLD_SECONDS)
        await keeper.look()
        assert log.stat().st_size, "somebody still reads it"
        reader.execute("COMMIT")
    writes = [asyncio.ensure_future(stage.go(f"n{number}")) for number in range(20)]
    stage.clock.advance(FOLD_SECONDS)
    await keeper.look()
    await asyncio.gather(*writes)
    stage.clock.advance(FOLD_SECONDS)
    await keeper.look()
    assert log.stat().st_size == 0
    assert len(await stage.ids()) == 22


async def test_a_file_of_an_earlier_version_gives_back_from_its_next_start(tmp_path: Path) -> None:
    path = tmp_path / schema.FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        schema.set_up(db)
        db.execute("PRAGMA journal_mode = WAL")
        schema.create(db)
        db.execute(
            "INSERT INTO dead_letter (id, recipient, reason, detail, attempts, at, body)"
            " VALUES ('x', '', '', '', 1, 0, zeroblob(9))"
        )
    schema.prepare(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM dead_letter").fetchone() == (1,)


@pytest.mark.usefixtures("way")
async def test_a_service_that_stops_leaves_no_payload(tmp_path: Path) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=10_000) as stage:
        (await opened(stage.factory, EmbeddedBackend)).keeper()
        messages = mail(stage, 20, 9600)
        await pass_through(stage, messages)
    assert on_disk(tmp_path, messages[0].envelope[:64]) == {}
