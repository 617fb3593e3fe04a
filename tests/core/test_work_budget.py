"""RACES 37: a budget of work for each user, and turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from router.core import work_budget
from router.core.work_budget import (
    AT_ONCE,
    CALL,
    CALL_BYTES,
    CALLS,
    CONNECTS_AT_ONCE,
    CONNECTS_PER_SECOND,
    HEAVY,
    MESSAGE,
    PACE,
    PATIENCE_SECONDS,
    READ_BYTES,
    REST,
    SEND,
    UNIT_SECONDS,
    Call,
    WorkBudget,
    of_body,
)
from router.errors import TooMuchWork
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio
ALICE, EVE = "urn:sm:user:alice", "urn:sm:user:eve"


class Stage:
    """The work of all, and the hand that holds its clock."""

    def __init__(self, rate: float = 100, burst: float = 1_000_000) -> None:
        self.clock = ManualClock()
        self.work = WorkBudget(clock=self.clock, rate=rate, burst=burst)

    async def begin(self, user: str = ALICE, units: int = 0) -> asyncio.Task[Call]:
        async def begun() -> Call:
            call = await self.work.begin(user)
            try:
                await call.spend(units)
            except BaseException:
                call.end()
                raise
            return call

        task = asyncio.create_task(begun())
        await turns()
        return task

    async def begin_many(self, count: int, units: int = 0, user: str = ALICE) -> Sequence[asyncio.Task[Call]]:
        return [await self.begin(user, units) for _ in range(count)]

    async def pass_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await turns()


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def done(tasks: Sequence[asyncio.Task[Call]]) -> int:
    return sum(task.done() for task in tasks)


async def refused(task: asyncio.Task[Call]) -> float:
    with pytest.raises(TooMuchWork) as found:
        await task
    return found.value.retry_after


# The budget.


async def test_what_a_budget_has_is_spent_at_once() -> None:
    stage = Stage(burst=1000)
    for _ in range(1000 // CALL):
        (await (await stage.begin())).end()
    late = await stage.begin()
    assert not late.done()
    await stage.pass_by(CALL / 100)
    (await late).end()
    other = await stage.begin(EVE)
    (await other).end()


async def test_a_debt_is_waited_for_up_to_a_second_and_then_refused() -> None:
    stage = Stage(burst=1000)
    call = await (await stage.begin())
    call.charge(1000)
    call.end()
    soon = await stage.begin()
    stage.work.charge(EVE, 10_000)  # ten times what a budget holds
    never = await stage.begin(EVE)
    await stage.pass_by(0.4)
    assert (await soon) is not None, "20 + 1,000 + 20 of 1,000: 0.4 s at 100/s"
    assert not never.done(), "who asks again at once is to wait, too"
    await stage.pass_by(PATIENCE_SECONDS - 0.4)
    # 10,000 - 1,000 and a call, less what has come back.
    assert await refused(never) == pytest.approx((9000 + CALL) / 100 - PATIENCE_SECONDS)
    of_alice = "users=1, calls=1, units=20, waiting=0, budgets=2"
    assert repr(stage.work) == f"<WorkBudget: Statistics({of_alice})>"


async def test_a_refused_call_is_not_charged_to_the_work_budget() -> None:
    stage = Stage(burst=1000)
    stage.work.charge(ALICE, 2000)
    for _ in range(3):
        late = await stage.begin()
        await stage.pass_by(PATIENCE_SECONDS)
        await refused(late)
    await stage.pass_by(10.2 - 3)
    assert (await stage.begin()).done()


async def test_more_than_a_budget_holds_is_possible_when_it_is_full() -> None:
    stage = Stage(burst=500)
    call = await (await stage.begin(units=0))
    call.end()
    late = await stage.begin(units=400)
    assert late.done()
    assert (await late).end() is None  # type: ignore[func-returns-value]  # it has none


async def test_without_a_limit_nothing_waits() -> None:
    stage = Stage(rate=0)
    calls = await stage.begin_many(CALLS * 3, 10**9)
    assert done(calls) == CALLS * 3
    for call in calls:
        (await call).charge(10**9)
        (await call).end()
    await turns()
    assert stage.work.statistics().users == 0


async def test_a_long_body_counts_as_the_calls_whose_memory_it_takes() -> None:
    """Until its call ends. One for which there is no room waits for a second, as one more call does."""
    stage = Stage()
    first, second = [await (await stage.begin()) for _ in range(2)]
    await first.expect(CALL_BYTES - 1)
    assert stage.work.statistics().calls == 2
    await first.expect((CALLS - 3) * CALL_BYTES)
    assert stage.work.statistics().calls == CALLS - 1
    waiting = asyncio.create_task(second.expect(2 * CALL_BYTES))
    await turns()
    assert not waiting.done()
    await stage.pass_by(2 * PATIENCE_SECONDS)
    with pytest.raises(TooMuchWork):
        await waiting
    assert stage.work.statistics().calls == CALLS - 1
    first.end()
    await second.expect(2 * CALL_BYTES)
    assert stage.work.statistics().calls == 3
    second.end()
    await turns()
    assert stage.work.statistics().users == 0


# Turns.


async def test_calls_beyond_the_units_under_way_wait_for_their_turn() -> None:
    stage = Stage()
    most = AT_ONCE // CALL
    calls = await stage.begin_many(most + 2)
    assert [call.done() for call in calls] == [True] * most + [False] * 2, (
        "no call of one user overtakes those that wait"
    )
    other = await stage.begin(EVE)
    assert other.done(), "and none of another user waits"
    (await calls[1]).end()
    await turns()
    assert [call.done() for call in calls] == [True] * (most + 1) + [False]
    (await calls[0]).end()
    await turns()
    assert done(calls) == most + 2
    for call in (*calls[2:], other):
        (await call).end()
    await turns()
    assert stage.work.statistics().users == 0


async def test_what_ends_at_once_has_its_turn_all_the_same() -> None:
    """Else a hundred requests that wait for nothing are all answered before anybody else is heard."""
    stage = Stage()
    most, served, seen = AT_ONCE // CALL, 0, []

    async def one() -> None:
        nonlocal served
        (await stage.work.begin(ALICE)).end()
        served += 1

    tasks = [asyncio.create_task(one()) for _ in range(3 * most)]
    while served < len(tasks):
        await asyncio.sleep(0)
        seen.append(served)
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) <= most
    await turns()
    assert stage.work.statistics().users == 0


async def test_what_is_heavy_is_alone_and_rests_first() -> None:
    stage = Stage()
    light = await (await stage.begin(units=AT_ONCE // 2))
    heavy = await stage.begin(units=HEAVY + 1)
    last = await stage.begin()
    light.end()
    await turns()
    assert not heavy.done()
    await stage.pass_by((HEAVY + 1) * UNIT_SECONDS * REST)
    assert heavy.done()
    assert not last.done()
    (await heavy).end()
    await turns()
    assert last.done()


async def test_a_call_that_asks_for_another_turn_holds_up_nobody_meanwhile() -> None:
    """Else two that hold a part, and want more than the rest, wait for each other."""
    stage = Stage()
    one, other = await (await stage.begin(units=AT_ONCE // 2)), await (await stage.begin(units=AT_ONCE // 2))
    again = [asyncio.create_task(call.turn(AT_ONCE)) for call in (one, other)]
    await turns()
    assert [task.done() for task in again] == [True, False]
    one.end()
    await turns()
    assert again[1].done()
    other.end()
    await turns()
    assert stage.work.statistics().users == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_call_gives_its_turn_on(granted: bool) -> None:
    stage = Stage()
    first = await (await stage.begin(units=AT_ONCE))
    second, third = await stage.begin_many(2, AT_ONCE)
    if granted:
        first.end()  # its turn has come, and it has not heard of it yet
    second.cancel()
    await turns()
    assert second.cancelled()
    if not granted:
        assert not third.done()
        first.end()
        await turns()
    assert third.done()
    (await third).end()
    await turns()
    assert stage.work.statistics().users == 0


async def test_calls_beyond_the_number_that_may_wait_are_refused() -> None:
    stage = Stage()
    calls = await stage.begin_many(CALLS, AT_ONCE - CALL)
    assert done(calls) == 1
    more = await stage.begin()
    lucky = await stage.begin()
    assert not more.done()
    assert (await stage.begin(EVE)).done()
    (await calls[0]).end()
    await stage.pass_by(PATIENCE_SECONDS)
    await stage.pass_by(CALL / PACE)
    assert await refused(lucky) == PATIENCE_SECONDS
    for call in calls[1:]:
        (await call).end()
        await turns()
    (await more).end()


async def test_the_refusals_of_one_user_do_not_come_together() -> None:
    """Hundreds that waited as long as one another would be answered in one go, and everybody else would wait for it."""
    stage = Stage(burst=1000)
    stage.work.charge(ALICE, 1_000_000)
    refusals = await stage.begin_many(10)
    other = await stage.begin(EVE)
    assert other.done()
    await stage.pass_by(PATIENCE_SECONDS)
    assert done(refusals) == 1
    for number in range(2, 11):
        await stage.pass_by(CALL / PACE)
        assert done(refusals) == number
    for refusal in refusals:
        await refused(refusal)


async def test_what_is_read_is_read_at_a_pace() -> None:
    stage = Stage()
    calls = [await (await stage.begin()) for _ in range(3)]
    reads = [asyncio.create_task(call.rest(READ_BYTES * 10)) for call in calls]
    other = asyncio.create_task((await (await stage.begin(EVE))).rest(READ_BYTES * 10))
    await turns()
    assert [task.done() for task in (*reads, other)] == [False] * 4
    for number in range(1, 4):
        await stage.pass_by(10 / PACE)
        assert sum(task.done() for task in reads) == number
        assert other.done(), "who reads little waits for little"


async def test_connections_come_at_a_pace_once_all_devices_are_back() -> None:
    stage = Stage()
    connects = []
    for _ in range(CONNECTS_AT_ONCE + 3):
        call = await (await stage.begin())
        connects.append(asyncio.create_task(call.connect()))
        await turns()
    other = asyncio.create_task((await (await stage.begin(EVE))).connect())
    await turns()
    assert sum(task.done() for task in connects) == CONNECTS_AT_ONCE
    assert other.done(), "nobody waits for another's"
    assert (await stage.begin(units=AT_ONCE)).done(), "who waits to connect holds no turn"
    for number in range(1, 4):
        await stage.pass_by(1 / CONNECTS_PER_SECOND)
        assert sum(task.done() for task in connects) == CONNECTS_AT_ONCE + number


async def test_a_body_that_is_slow_holds_no_turn() -> None:
    stage = Stage()
    slow = await (await stage.begin(units=AT_ONCE))
    slow.pause()
    other = await stage.begin(units=AT_ONCE)
    assert other.done()


# What honest clients need, with the defaults (docs/http.md).


@pytest.mark.parametrize("page", [50, 500])
async def test_the_defaults_let_a_full_queue_be_drained_at_full_speed(page: int) -> None:
    """100,000 messages of 1.5 KiB, by one device that never waits; not even a rest is asked for."""
    stage = Stage(25_000, 1_000_000)
    ids = b'{"messageIds":[%b]}' % b",".join([b'"0192f5a0-7c3e-7d2b-8f4a-1c6e9b3d5a70"'] * page)
    for _ in range(100_000 // page):
        call = await stage.work.begin(ALICE)
        call.charge(page * MESSAGE + page * 1536 // work_budget.ANSWER_BYTES)
        await call.turn(page * 1536 // work_budget.ANSWER_BYTES)
        call.end()
        call = await stage.work.begin(ALICE)
        await call.spend(of_body(ids, page + 1) + page * MESSAGE)
        call.end()
    assert stage.clock.monotonic() == 0
    assert stage.work.spent(ALICE) <= 400_000, "and more than half of the budget is left"


async def test_the_defaults_let_a_sender_send_as_fast_as_it_may() -> None:
    """50 a second of the largest, for ever."""
    stage = Stage(25_000, 1_000_000)
    for _ in range(20_000):
        call = await stage.work.begin(ALICE)
        await call.spend(SEND + of_body(b"x" * 350_000, 6))
        call.end()
        stage.clock.advance(0.02)
    assert stage.work.spent(ALICE) <= 1000
