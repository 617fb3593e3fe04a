"""Moving to a cold queue that takes a part, or nothing; over the real embedded components."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from router.core.migrator import PUT_TRIES
from router.errors import Unavailable
from router.messages import MigrationResult, Queued
from tests.contract.stage import BOB, Stage
from tests.core.test_outage import lose_answers
from tests.support.clock import ended
from tests.support.pipelines import eventually

pytestmark = pytest.mark.anyio


def refuse(stage: Stage, patch: pytest.MonkeyPatch, id_: str, times: int) -> list[list[str]]:
    """Cold does not take the message ``id_`` so often; returns what it is given, call by call."""
    put, calls = stage.cold.put, list[list[str]]()

    async def refuse_one(messages: Sequence[Queued]) -> list[Queued]:
        calls.append([queued.message.id for queued in messages])
        refused = [queued for queued in messages if queued.message.id == id_ and len(calls) <= times]
        return [*await put([queued for queued in messages if queued not in refused]), *refused]

    patch.setattr(type(stage.cold), "put", lambda _, messages: refuse_one(messages))
    return calls


async def test_only_what_cold_refused_of_a_move_is_written_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7: and hot keeps all of it until then. That the lease could not be given back then fails nothing."""
    await stage.connect()
    for id_ in ("m1", "m2", "m3"):
        await stage.go(id_)
    calls = refuse(stage, monkeypatch, "m2", 2)
    releases = lose_answers(monkeypatch, stage.online, "release_move")
    migration = asyncio.create_task(stage.migrator.migrate(BOB, online_too=True))

    async def refused_twice() -> bool:
        return len(calls) == 2

    await eventually(stage, refused_twice)
    assert (await stage.hot(), await stage.ids()) == (["m1", "m2", "m3"],) * 2
    await ended(stage.clock, migration)
    assert (migration.result().moved, migration.result().result) == (3, MigrationResult.DONE)
    assert calls == [["m1", "m2", "m3"], ["m2"], ["m2"]]
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2", "m3"])
    assert len(releases) == stage.failures("online") == 1


async def test_a_move_that_cold_refuses_for_long_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7: a sweeper comes back to it; other users' moves do not wait."""
    await stage.connect()
    await stage.go("m1")
    calls = refuse(stage, monkeypatch, "m1", PUT_TRIES)
    migration = asyncio.create_task(stage.migrator.migrate(BOB, online_too=True))
    await ended(stage.clock, migration)
    assert isinstance(migration.exception(), Unavailable)
    assert repr(stage.migrator) == f"<Migrator {stage.factory.node}: Statistics(begun=1, unfinished=1)>"
    assert (calls, await stage.hot(), await stage.pushed()) == ([["m1"]] * PUT_TRIES, ["m1"], [])
    assert (await stage.migrator.migrate(BOB, online_too=True)).moved == 1
    assert stage.migrator.statistics().unfinished == 0
