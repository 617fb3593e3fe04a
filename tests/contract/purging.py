"""A user who leaves is purged beside whoever works on their mail. A backend's test subclasses this unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from msgspec.structs import replace

from router.core.purge import Purged
from router.core.settler import Settler
from router.dead_reasons import DeadReason
from router.messages import DeadLetter, Forgotten, Lane, Message, Move, Outcome, Queued, Routed
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, envelope
from tests.support.recorded_spans import TRACEPARENT

pytestmark = pytest.mark.anyio
STEP_SECONDS = 0.25
POLL_SECONDS = 0.001


async def run_until(stage: Stage, condition: Callable[[], bool]) -> None:
    """Let the clock run while the purge waits for it, and stand while it works, however long a server takes."""
    while not condition():
        if stage.clock.sleepers:
            stage.clock.advance(STEP_SECONDS)
        await asyncio.sleep(0 if stage.clock.sleepers else POLL_SECONDS)


async def finished(stage: Stage, task: asyncio.Task[Purged]) -> Purged:
    await run_until(stage, task.done)
    return await task


async def purge(stage: Stage, user: str = BOB) -> Purged:
    return await finished(stage, await begin(stage, user))


async def begin(stage: Stage, user: str = BOB) -> asyncio.Task[Purged]:
    return asyncio.create_task((await stage.factory.purge()).purge(user))


async def refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> asyncio.Task[Purged]:
    """A purge that has found somebody at work, so that the store refused to forget the user."""
    answers: list[Forgotten] = []
    forget_user = stage.online.forget_user

    async def spy(user: str, limit: int) -> Forgotten:
        answers.append(await forget_user(user, limit))
        return answers[-1]

    monkeypatch.setattr(stage.online, "forget_user", spy)
    task = await begin(stage)
    await run_until(stage, lambda: bool(answers) or task.done())
    assert answers == [Forgotten(in_use=True)]
    return task


async def store(stage: Stage, message: Message, routed: Routed) -> None:
    """Do as a pipeline does, however a purge comes between its steps."""
    queued = Queued(message, routed.sequence, routed.queued_at)
    assert await stage.cold.put([queued]) == []
    await Settler(stage.online, stage.cold).settle([queued])


async def check_gone(stage: Stage, *ids: str) -> None:
    """Nothing is left of bob, and his ids are unknown."""
    assert (await stage.hot(), await stage.in_cold(), await stage.ids()) == ([], [], [])
    assert await stage.online.connections(BOB) == []
    assert [user.user for user in await stage.online.hot_users("", 100) if user.user == BOB] == []
    assert await stage.online.orphans(100) == []
    for id_ in ids:
        assert await stage.go(id_) is Outcome.COLD, f"{id_} is known"


def has_passed(stage: Stage, end: float, task: asyncio.Task[Purged]) -> bool:
    return task.done() or stage.clock.monotonic() >= end


class PurgeContract:
    """All that is kept of one user goes, and nothing of others."""

    async def test_nothing_is_left_of_who_leaves(self, stage: Stage) -> None:
        for user in (BOB, EVE):
            await stage.go("cold", user)
            await stage.connect(user)
            for id_, lane in (("hot", Lane.NORMAL), ("express", Lane.EXPRESS), ("acked", Lane.NORMAL)):
                await stage.go(id_, user, lane=lane)
            await stage.queue.acknowledge(user, ["acked"])
            letter = DeadLetter(
                "dead", user, DeadReason.QUEUE_FULL, "", envelope(user, Lane.NORMAL, ephemeral=False), 1, 0
            )
            await (await stage.factory.dead_letters()).publish([letter])
        contexts = stage.factory.backends.online().trace_contexts()
        if contexts is not None:  # else they are in the messages
            traced = [replace(stage.message("m1", user), trace=TRACEPARENT) for user in (BOB, EVE)]
            await contexts.keep(traced)
        done = await purge(stage)
        assert done.complete
        if contexts is not None:
            assert [await contexts.find(user, ["m1"]) for user in (BOB, EVE)] == [{}, {"m1": TRACEPARENT}]
        assert (done.hot, done.cold, done.dead_letters, done.connections) == (2, 1, 1, 1)
        assert await stage.letters() == [("dead", "queue-full")]
        await check_gone(stage, "cold", "hot", "express", "acked")
        assert await stage.ids(EVE) == ["express", "cold", "hot"]
        assert len(await stage.online.connections(EVE)) == 1
        assert await stage.go("hot", EVE) is Outcome.DUPLICATE

    async def test_who_is_unknown_has_nothing_and_again_nothing(self, stage: Stage) -> None:
        await stage.go("m1", EVE)
        assert await purge(stage) == Purged(complete=True)
        assert (await purge(stage, EVE)).cold == 1
        assert await purge(stage, EVE) == Purged(complete=True)

    async def test_nothing_comes_back_through_a_migrator_at_work(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await stage.connect()
        await stage.go("m1")
        await stage.go("m2")
        move = await stage.online.begin_move(BOB, "other", 10, PAGE_BYTES, online_too=True)
        assert isinstance(move, Move)
        if not move.messages:  # one file has moved them in one step
            assert (await purge(stage)).complete
        else:
            task = await refused(stage, monkeypatch)
            assert await stage.cold.put(move.messages) == []
            acked = await stage.online.end_move(BOB, "other", move.messages)
            await stage.cold.delete(BOB, acked)
            await stage.online.forget_orphans(BOB, acked)
            await stage.online.release_move(BOB, "other")
            assert (await finished(stage, task)).complete
        await check_gone(stage, "m1", "m2")

    async def test_nothing_is_left_by_a_migrator_that_died(self, stage: Stage) -> None:
        await stage.connect()
        await stage.go("m1")
        move = await stage.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=True)
        assert isinstance(move, Move)
        assert await stage.cold.put(move.messages) == []
        assert (await purge(stage)).complete
        await check_gone(stage, "m1")

    async def test_nothing_comes_back_through_a_pipeline_at_work(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message = stage.message("m1")
        (routed,) = await stage.route(message)
        assert routed.outcome is Outcome.COLD
        task = await refused(stage, monkeypatch)
        await store(stage, message, routed)
        assert (await finished(stage, task)).complete
        await check_gone(stage, "m1")

    async def test_nothing_is_left_by_a_pipeline_that_died(self, stage: Stage) -> None:
        (routed,) = await stage.route(stage.message("m1"))
        assert routed.outcome is Outcome.COLD
        assert (await purge(stage)).complete
        await check_gone(stage, "m1")

    async def test_it_is_said_that_something_keeps_coming(self, stage: Stage) -> None:
        task, sent = await begin(stage), 0
        while not task.done():
            sent += 1
            message = stage.message(f"m{sent}")
            (routed,) = await stage.route(message)
            await store(stage, message, routed)
            end = stage.clock.monotonic() + 2
            await run_until(stage, partial(has_passed, stage, end, task))
        found = await task
        assert not found.complete
        assert sent > 10
