"""Push commands in the embedded outbox hold no second copy of their mail, and go with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from router.backends.embedded import schema
from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.push import EmbeddedOutbox
from router.messages import Queued
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        yield stage


@pytest.fixture
async def outbox(stage: Stage) -> EmbeddedOutbox:
    return await (await opened(stage.factory, EmbeddedBackend)).outbox()


async def announce(stage: Stage, id_: str) -> None:
    """Route one message as the pipeline does, and publish its command."""
    await stage.go(id_)
    await (await stage.factory.push_notifier()).publish([stage.message(id_)])


async def copies(stage: Stage) -> list[int]:
    """How many bytes each command holds of its own."""
    database = (await opened(stage.factory, EmbeddedBackend))._database
    return [size for (size,) in database.read(lambda db: db.execute("SELECT length(command) FROM outbox").fetchall())]


@pytest.mark.parametrize("online", [False, True], ids=["cold", "hot"])
async def test_a_command_refers_to_its_mail_wherever_it_is(stage: Stage, outbox: EmbeddedOutbox, online: bool) -> None:
    connection = await stage.connect() if online else None
    await announce(stage, "m1")
    assert await copies(stage) == [0]
    wanted = {"recipientId": BOB, "envelope": {"recipientId": BOB}}
    assert [msgspec.json.decode(entry.command) for entry in await outbox.list(0, 10)] == [wanted]
    if connection is not None:
        await stage.online.disconnect([connection])
        await stage.queue.migrate_hot_to_cold(BOB)
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
        assert [msgspec.json.decode(entry.command) for entry in await outbox.list(0, 1)] == [wanted]


@pytest.mark.parametrize("online", [False, True], ids=["cold", "hot"])
async def test_a_command_goes_in_the_transaction_that_acknowledges_its_mail(stage: Stage, online: bool) -> None:
    if online:
        await stage.connect()
    await announce(stage, "m1")
    await announce(stage, "m2")
    await stage.online.ack(EVE, ["m1"])
    assert len(await copies(stage)) == 2, "nobody else's acknowledgement takes it"
    await stage.online.ack(BOB, ["m1"])
    assert await stage.pushed() == ["m2"]
    assert len(await copies(stage)) == 1


async def test_no_command_is_left_of_mail_that_was_acknowledged_before_it_was_announced(stage: Stage) -> None:
    await stage.go("m1")
    await stage.queue.acknowledge(BOB, ["m1"])
    await (await stage.factory.push_notifier()).publish([stage.message("m1")])
    assert await copies(stage) == []


async def test_a_command_goes_with_mail_that_retention_removes(stage: Stage) -> None:
    await announce(stage, "m1")
    stage.clock.advance(31 * 86_400)
    await stage.sweeper.sweep()
    assert await stage.in_cold() == []
    assert await copies(stage) == []


async def test_a_command_goes_with_damaged_mail_and_is_not_shown_before(stage: Stage, outbox: EmbeddedOutbox) -> None:
    """RACES 42."""
    await announce(stage, "m1")
    await announce(stage, "m2")
    database = (await opened(stage.factory, EmbeddedBackend))._database
    await database.write(lambda db: db.execute("UPDATE cold SET envelope = x'7b' WHERE id = 'm1'").rowcount)
    assert [entry.id for entry in await outbox.list(0, 1)] == ["m2"]
    assert await stage.ids() == ["m2"]
    await stage.factory.tasks.settled()
    assert await copies(stage) == [0]


async def test_a_command_has_its_own_copy_where_cold_is_elsewhere(stage: Stage) -> None:
    """As beside Firestore: hot mail that is announced leaves this file while its command waits."""
    await stage.connect()
    await stage.go("m1")
    database = (await opened(stage.factory, EmbeddedBackend))._database
    await EmbeddedOutbox(database, stage.clock, stage.factory.keeper, cold_here=False).publish([stage.message("m1")])
    assert await copies(stage) == [len(b'{"recipientId":"","envelope":{"recipientId":""}}') + 2 * len(BOB)]
    await stage.online.ack(BOB, ["m1"])
    assert await copies(stage) == []


@pytest.mark.usefixtures("piped")
async def test_a_command_has_its_own_copy_of_mail_that_is_hot_elsewhere(stage: Stage, outbox: EmbeddedOutbox) -> None:
    """As beside Redis: it is in no table of this file until it is moved."""
    message = stage.message("m1")
    await outbox.publish([message])
    assert [msgspec.json.decode(entry.command)["recipientId"] for entry in await outbox.list(0, 10)] == [BOB]
    await stage.cold.put([Queued(message, 1, stage.clock.now())])
    await stage.cold.delete(BOB, ["m1"])
    assert await copies(stage) == []


def test_the_copies_of_an_older_version_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / schema.FILE_NAME
    monkeypatch.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:5])
    monkeypatch.setattr(schema, "VERSION", 5)
    with closing(schema.open_writer(path)) as db:
        for number, id_ in enumerate(("waits", "acked", "elsewhere")):
            db.execute("INSERT INTO outbox VALUES (?, ?, ?, zeroblob(9), 0)", (number, id_, BOB))
        db.execute("INSERT INTO route (id, user, lane, sequence, state, keyed) VALUES ('acked', ?, 1, 1, 3, 0)", (BOB,))
        db.execute(
            "INSERT INTO cold (user, lane, sequence, id, queued_at, accepted_at, keyed, attempts, envelope)"
            " VALUES (?, 1, 2, 'waits', 0, 0, 0, 1, x'7b7d')",
            (BOB,),
        )
    monkeypatch.undo()
    with closing(schema.open_writer(path)) as db:
        found = db.execute("SELECT number, id, length(command) FROM outbox").fetchall()
    assert found == [(0, "waits", 0), (2, "elsewhere", 9)]
