"""Which clock is believed, and for what."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from router.clock import MICROSECONDS
from router.messages import Lane, Message, Queued
from router.timekeeping import (
    EARLY_SECONDS,
    LATE_SECONDS,
    LONG_SURE_SECONDS,
    OVERDUE_SECONDS,
    SURE_SECONDS,
    Timekeeper,
    may_delete,
)
from tests.support.clock import ManualClock

MONTH = 31 * 86_400 * MICROSECONDS


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def keeper(clock: ManualClock) -> Timekeeper:
    return Timekeeper(clock)


@pytest.mark.parametrize(
    ("overdue", "agreed", "deletes"),
    [
        (0, SURE_SECONDS - 1, False),
        (0, SURE_SECONDS, True),
        (OVERDUE_SECONDS, SURE_SECONDS, True),
        (OVERDUE_SECONDS + 1, SURE_SECONDS, False),
        (OVERDUE_SECONDS + 1, LONG_SURE_SECONDS - 1, False),
        (10**9, LONG_SURE_SECONDS, True),
    ],
)
def test_what_retention_may_delete(overdue: float, agreed: float, deletes: bool) -> None:
    assert may_delete(overdue, agreed) is deletes


def test_nothing_is_deleted_before_a_second_look(clock: ManualClock, keeper: Timekeeper) -> None:
    assert keeper.deleting_at() == 0
    clock.advance(SURE_SECONDS)
    assert keeper.deleting_at() == clock.now()


def test_a_store_that_has_a_clock_is_a_second_look(clock: ManualClock, keeper: Timekeeper) -> None:
    """The earlier of the two deletes, the later one dates; for as long as the store was not asked again, by the
    monotonic clock."""
    for ahead, deletes, dates in ((0, 0, 0), (7, -7, -7), (-7, 0, 7)):
        keeper.measured(ahead)
        assert keeper.deleting_at() == clock.now() + deletes * MICROSECONDS
        assert keeper.dating_at() == clock.now() + dates * MICROSECONDS
    keeper.measured(0)
    true = clock.now()
    clock.time += MONTH
    assert keeper.deleting_at() == keeper.dating_at() == true


def test_a_step_is_not_believed_at_once_and_is_told_of(clock: ManualClock, keeper: Timekeeper) -> None:
    """RACES 45."""
    clock.advance(2 * SURE_SECONDS)
    assert keeper.agreed_seconds == 2 * SURE_SECONDS
    with capture_logs() as logged:
        clock.time += MONTH
        assert keeper.deleting_at() == 0
        clock.advance(SURE_SECONDS - 1)
        assert (keeper.deleting_at(), keeper.agreed_seconds) == (0, SURE_SECONDS - 1)
        assert keeper.dating_at() == clock.now() - MONTH
        clock.advance(1)
        assert keeper.dating_at() == clock.now(), "after an hour"
        assert keeper.deleting_at() == clock.now() - MONTH, "no store has a clock: after a day"
        clock.advance(LONG_SURE_SECONDS - SURE_SECONDS)
        assert keeper.deleting_at() == keeper.dating_at() == clock.now()
        clock.time -= MONTH
        assert (keeper.deleting_at(), keeper.agreed_seconds) == (0, 0)
    assert [line["seconds"] for line in logged] == [MONTH // MICROSECONDS, -MONTH // MICROSECONDS]


def test_a_start_that_is_long_after_what_was_known_is_a_step(clock: ManualClock, keeper: Timekeeper) -> None:
    """RACES 45: the process before was down for long, or this one started with a clock that is ahead."""
    keeper.not_before(clock.now() - MONTH)
    assert keeper.dating_at() == clock.now()
    clock.advance(SURE_SECONDS)
    assert keeper.deleting_at() == clock.now() - MONTH
    clock.advance(LONG_SURE_SECONDS - SURE_SECONDS)
    assert keeper.deleting_at() == clock.now()


def test_a_new_file_knows_no_time(clock: ManualClock, keeper: Timekeeper) -> None:
    keeper.not_before(0)
    clock.advance(SURE_SECONDS)
    assert keeper.deleting_at() == clock.now()


def test_the_clock_of_a_store_says_after_an_hour_what_is_right(clock: ManualClock, keeper: Timekeeper) -> None:
    clock.time -= MONTH
    keeper.look()
    clock.time += MONTH
    keeper.look()
    keeper.measured(0)
    clock.advance(SURE_SECONDS)
    assert keeper.deleting_at() == keeper.dating_at() == clock.now()


def test_an_hour_ahead_is_forgotten_once_the_clock_has_gone_evenly_for_a_day(
    clock: ManualClock, keeper: Timekeeper
) -> None:
    clock.time += 100 * MONTH
    keeper.not_before(clock.now())
    keeper.look()
    clock.advance(SURE_SECONDS + 1)
    keeper.look()
    clock.time -= 100 * MONTH
    keeper.look()
    assert keeper.dating_at() == clock.now() + 100 * MONTH
    clock.advance(LONG_SURE_SECONDS)
    assert keeper.dating_at() == clock.now()


def test_a_time_service_at_work_is_no_step(clock: ManualClock, keeper: Timekeeper) -> None:
    with capture_logs() as logged:
        for _ in range(100):
            clock.advance(59)
            clock.time += 59 * MICROSECONDS
            keeper.look()
    assert logged == []
    assert keeper.agreed_seconds >= SURE_SECONDS


@pytest.mark.parametrize("up_seconds", [0, 60, 2 * SURE_SECONDS])
def test_what_a_clock_dates_that_fell_behind(clock: ManualClock, keeper: Timekeeper, up_seconds: float) -> None:
    """RACES 45: what was known of the time is not forgotten, however long the clock stays behind."""
    clock.advance(up_seconds)
    keeper.look()
    true = clock.now()
    clock.time -= MONTH
    assert keeper.dating_at() == true
    if up_seconds >= SURE_SECONDS:
        clock.advance(10 * SURE_SECONDS)
        keeper.look()
        assert keeper.dating_at() == true + int(10 * SURE_SECONDS) * MICROSECONDS


def test_what_was_known_before_the_start(clock: ManualClock, keeper: Timekeeper) -> None:
    true = clock.now()
    clock.time -= MONTH
    keeper = Timekeeper(clock)
    keeper.not_before(true)
    clock.advance(5)
    assert keeper.dating_at() == true + 5 * MICROSECONDS


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [(0, True), (-EARLY_SECONDS, True), (-EARLY_SECONDS - 1, False), (LATE_SECONDS, True), (LATE_SECONDS + 1, False)],
)
def test_the_date_of_mail_is_doubted_where_it_is_far_off(
    clock: ManualClock, keeper: Timekeeper, seconds: float, kept: bool
) -> None:
    at = clock.now() + int(seconds) * MICROSECONDS
    queued = Queued(Message("m1", "bob", b"{}", Lane.NORMAL, False, at), 1, at)
    dated = keeper.dated(queued)
    assert dated.queued_at == (at if kept else clock.now())
    assert (dated.message, dated.sequence) == (queued.message, queued.sequence)
