"""Every transition of ``router.lifecycle``, brought about in an online store. A backend's test subclasses this
unchanged."""

from __future__ import annotations

import pytest

from router.lifecycle import TRANSITIONS, Event, State, step
from router.messages import Delivery, Message, Move, Queued, Routed
from tests.contract.stage import BOB, PAGE_BYTES, Stage
from tests.support.records import state_on_record

pytestmark = pytest.mark.anyio
ID = "0190b5a0-0000-7000-8000-000000000001"
REACHED = (State.UNKNOWN, State.HOT, State.PENDING, State.COLD, State.ACKED, State.DOUBLE, State.ACKED_OWED)
"""All but ``DAMAGED``, which no event leads to (tests/embedded/test_damaged_file.py)."""
BROUGHT = (
    Event.REDELIVERED, Event.FOUND, Event.SETTLED, Event.ACKNOWLEDGED, Event.TAKEN, Event.MOVED, Event.EXPIRED,
    Event.CLEARED, Event.FORGOTTEN,
)  # fmt: skip
"""Events that can meet any state; those that make a record lead to the states, ``DROPPED`` is of ephemeral mail, and
``ABANDONED`` comes after so long that tombstones are over."""


async def reach(stage: Stage, state: State) -> Queued:
    """Lead BOB's message to ``state``, or at least give it a place; he is online where it is hot."""
    if state is State.UNKNOWN:
        return Queued(stage.message(ID), stage.clock.now(), stage.clock.now())
    if state in (State.HOT, State.DOUBLE, State.ACKED):
        await stage.connect()
    message = stage.message(ID)
    queued = _placed(message, *await stage.route(message, attempt=2 if state is State.DOUBLE else 1))
    if state in (State.COLD, State.ACKED_OWED):
        await stage.online.settle([queued])
    if state in (State.ACKED, State.ACKED_OWED):
        await stage.online.ack(BOB, [ID])
    assert await state_on_record(stage, ID) is state
    return queued


def _placed(message: Message, routed: Routed) -> Queued:
    return Queued(message, routed.sequence, routed.queued_at)


async def bring(stage: Stage, event: Event, queued: Queued) -> bool:
    """Let ``event`` happen to ``queued``; returns whether the store asks for a deletion in cold."""
    online = stage.online
    if event is Event.REDELIVERED:
        await online.route([Delivery(queued.message, 0, 2)])
    elif event is Event.SETTLED:
        assert await stage.cold.put([queued]) == []
        return (await online.settle([queued])).acked == [queued]
    elif event is Event.ACKNOWLEDGED:
        return await online.ack(BOB, [ID]) == [ID]
    elif event is Event.TAKEN:
        assert isinstance(await online.begin_move(BOB, "migrator", 10, PAGE_BYTES, online_too=True), Move)
        await online.release_move(BOB, "migrator")
    elif event is Event.MOVED:
        return await online.end_move(BOB, "migrator", [queued]) == [ID]
    elif event is Event.FOUND:
        await online.acked(BOB, [ID])
    elif event is Event.EXPIRED:
        await online.forget_cold([queued])
    elif event is Event.CLEARED:
        await online.forget_orphans(BOB, [ID])
    elif event is Event.ABANDONED:
        await _pass_by(stage, 32 * 86_400)
        await online.read(BOB, 10, PAGE_BYTES)
    else:
        assert event is Event.FORGOTTEN
        await _pass_by(stage, stage.factory.config.online.tombstone_seconds + 1)
    return False


async def _pass_by(stage: Stage, seconds: float) -> None:
    """Let time go by, and look as sweepers do, who find by the way whose records are to be looked at."""
    await stage.online.hot_users("", 100)
    stage.clock.advance(seconds)
    await stage.online.stop_poking(await stage.online.expire(100))
    await stage.online.hot_users("", 100)
    await stage.online.purge(100, stage.clock.now())


class RecordContract:
    """The record of an id, state by state and event by event."""

    @pytest.mark.parametrize("event", BROUGHT, ids=lambda event: event.name.lower())
    @pytest.mark.parametrize("state", REACHED, ids=lambda state: state.name.lower())
    async def test_an_event_changes_a_record_as_the_table_says(self, stage: Stage, state: State, event: Event) -> None:
        """A record in each state meets each event."""
        if state is State.UNKNOWN and event is Event.REDELIVERED:
            pytest.skip("a redelivery of an id that is unknown is routed as a new one")
        queued = await reach(stage, state)
        expected = step(state, event)
        assert await bring(stage, event, queued) is expected.owes_deletion
        assert await state_on_record(stage, ID) is expected.after

    @pytest.mark.parametrize(
        "state", [State.PENDING, State.HOT, State.DOUBLE, State.ACKED_OWED], ids=lambda state: state.name.lower()
    )
    async def test_a_place_is_abandoned_and_nothing_else(self, stage: Stage, state: State) -> None:
        """Mail that is past its retention is hot all the same, and an orphan is still to be deleted."""
        queued = await reach(stage, state)
        await bring(stage, Event.ABANDONED, queued)
        assert await state_on_record(stage, ID) is step(state, Event.ABANDONED).after

    async def test_ephemeral_mail_that_is_dropped_leaves_a_tombstone(self, stage: Stage) -> None:
        """Its recipient goes, and a migrator finds it."""
        await stage.connect()
        await stage.route(stage.message(ID, ephemeral=True))
        assert await state_on_record(stage, ID) is State.HOT
        await stage.online.begin_move(BOB, "migrator", 10, PAGE_BYTES, online_too=True)
        assert await state_on_record(stage, ID) is TRANSITIONS[State.HOT][Event.DROPPED].after
