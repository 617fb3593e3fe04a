"""The books of one file are exact, whatever becomes of a message, and say who lacks one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.backends.embedded.schema import FILE_NAME
from router.books import Books, Unbalanced
from router.dead_reasons import DeadReason
from router.messages import Connection, DeadLetter
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.damage import execute
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio
DAY_SECONDS = 86_400
CAP = 4


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(EmbeddedStores(tmp_path), ManualClock(), cap=CAP) as opened:
        yield opened


async def books(stage: Stage) -> Books:
    """They balance."""
    auditor = await stage.factory.auditor()
    assert auditor is not None
    found, unbalanced = await auditor.books()
    assert (found.missing, unbalanced) == (0, [])
    return found


async def send(stage: Stage, *ids: str, user: str = BOB, ephemeral: bool = False, keyed: bool = False) -> None:
    for id_ in ids:
        await stage.producer.publish([stage.message(id_, user, ephemeral=ephemeral, keyed=keyed)])


async def sweep(stage: Stage, seconds: float) -> None:
    """Let so much time pass, with sweeps that believe the clock."""
    for _ in range(int(seconds / 3600) + 1):
        stage.clock.advance(3600)
        await stage.sweeper.sweep()


async def test_each_message_counts_once_as_what_became_of_it(stage: Stage) -> None:
    assert await books(stage) == Books(0, 0, 0, 0, 0, 0)
    await send(stage, "typing", ephemeral=True)
    assert await books(stage) == Books(accepted=1, acknowledged=0, queued=0, expired=0, dropped=1, dead=0)
    await send(stage, "m1", keyed=True)
    await send(stage, "m1", keyed=True)
    phone = await stage.connect()
    await send(stage, "m2", "m3")
    await send(stage, "typing too", ephemeral=True)
    assert await books(stage) == Books(accepted=5, acknowledged=0, queued=4, expired=0, dropped=1, dead=0)
    await send(stage, "too many")
    assert await books(stage) == Books(accepted=6, acknowledged=0, queued=4, expired=0, dropped=1, dead=1)
    await stage.queue.acknowledge(BOB, ["m1", "m2"])
    await stage.queue.acknowledge(BOB, ["m1", "m2", "made up"])
    assert await books(stage) == Books(accepted=6, acknowledged=2, queued=2, expired=0, dropped=1, dead=1)
    await stage.online.disconnect([phone])
    await stage.migrator.migrate(BOB)
    assert await stage.in_cold() == ["m3"]
    assert await books(stage) == Books(accepted=6, acknowledged=2, queued=1, expired=0, dropped=2, dead=1)


async def test_mail_past_its_retention_has_expired_and_ephemeral_mail_is_dropped(stage: Stage) -> None:
    await send(stage, "old")
    await stage.connect(EVE)
    await send(stage, "typing", user=EVE, ephemeral=True)
    await sweep(stage, (stage.factory.config.cold.retention_days + 2) * DAY_SECONDS)
    assert await stage.in_cold() == []
    assert await books(stage) == Books(accepted=2, acknowledged=0, queued=0, expired=1, dropped=1, dead=0)


async def test_damaged_mail_is_dead(stage: Stage) -> None:
    await send(stage, "m1", "m2")
    execute(stage, "UPDATE cold SET envelope = x'00' WHERE id = 'm1'")
    assert await stage.ids() == ["m2"]
    assert await books(stage) == Books(accepted=2, acknowledged=0, queued=1, expired=0, dropped=0, dead=1)


async def test_what_was_counted_stays_when_its_recipient_is_forgotten(stage: Stage) -> None:
    await send(stage, "m1")
    await send(stage, "m2", user=EVE)
    await stage.queue.acknowledge(BOB, ["m1"])
    before = await books(stage)
    await sweep(stage, 2 * DAY_SECONDS)
    with closing(sqlite3.connect(stage.factory.config.embedded.data_dir / FILE_NAME)) as db:
        assert db.execute("SELECT user FROM recipient").fetchall() == [(EVE,)]
    assert await books(stage) == before == Books(2, 1, 1, 0, 0, 0)


async def test_mail_that_waits_for_a_pipeline_is_queued_and_counts_once(stage: Stage) -> None:
    auditing = stage.message("waits")
    execute(
        stage,
        "INSERT INTO ingress (id, recipient, envelope, lane, ephemeral, keyed, accepted_at) "
        f"VALUES ('waits', '{BOB}', x'{auditing.envelope.hex()}', 1, 0, 0, 1)",
    )
    assert await books(stage) == Books(1, 0, 1, 0, 0, 0)
    await stage.go("waits")
    assert await books(stage) == Books(1, 0, 1, 0, 0, 0)
    execute(stage, "DELETE FROM ingress")
    assert await books(stage) == Books(1, 0, 1, 0, 0, 0)
    letter = DeadLetter("never routed", BOB, DeadReason.ATTEMPTS_EXHAUSTED, "", b"", 5, 1)
    await (await stage.factory.dead_letters()).publish([letter])
    assert await books(stage) == Books(2, 0, 1, 0, 0, 1)


@pytest.mark.parametrize("table", ["hot", "cold"])
async def test_a_message_that_is_lost_is_missing_and_the_books_say_whose(stage: Stage, table: str) -> None:
    if table == "hot":
        await stage.connect()
    await send(stage, "m1", "m2")
    if table == "cold":
        await send(stage, "m3", user=EVE)
    execute(stage, f"DELETE FROM {table} WHERE id = 'm1'")
    auditor = await stage.factory.auditor()
    assert auditor is not None
    found, unbalanced = await auditor.books()
    assert found.missing == 1
    assert unbalanced == [Unbalanced(BOB, kept=2, held=1)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "keyed", "typing", "ack", "connect", "disconnect", "later", "damage", "fetch"]),
        st.sampled_from([BOB, EVE]),
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_the_books_balance_after_each_step_of_any_run(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    async with staged(EmbeddedStores(tmp_path_factory.mktemp("run")), ManualClock(), cap=CAP) as stage:
        connections: dict[str, Connection] = {}
        for number, (what, user, which) in enumerate(steps):
            if what in ("send", "typing"):
                await send(stage, f"m{number}", user=user, ephemeral=what == "typing")
            elif what == "keyed":
                await send(stage, f"k{which}", user=user, keyed=True)
            elif what == "ack":
                ids = [f"k{which}", *(f"m{sent}" for sent in range(which, number, 2))]
                await stage.queue.acknowledge(user, ids)
            elif what == "connect":
                connections[user] = await stage.connect(user)
            elif what == "disconnect" and user in connections:
                await stage.online.disconnect([connections.pop(user)])
                await stage.migrator.migrate(user)
            elif what == "later":
                stage.clock.advance(10.0 ** (which % 6))
                await stage.sweeper.sweep()
            elif what == "damage":
                execute(stage, f"UPDATE hot SET checksum = 1 WHERE user = '{user}' AND id = 'k{which}'")
            elif what == "fetch":
                await stage.ids(user)
            await books(stage)
