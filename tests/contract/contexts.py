"""A message keeps its trace until it is acknowledged, wherever it waits (docs/tracing.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from router.core.user_queue import CompositeMessageQueue
from router.messages import Message, Outcome
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.clock import ManualClock
from tests.support.recorded_spans import SPAN, TRACE, TRACEPARENT, Recorder, ids, linked, parent
from tests.support.stores import Stores

OTHER = TRACEPARENT.replace(TRACE, TRACE[::-1])


def message(stage: Stage, id_: str, user: str = BOB, trace: str = TRACEPARENT) -> Message:
    return replace(stage.message(id_, user), trace=trace)


async def put(stage: Stage, sent: Message) -> Outcome:
    """Route one message, and write it where it belongs."""
    (routed,) = await stage.route(sent)
    if routed.outcome is Outcome.COLD:
        await stage.store(sent, routed)
    return routed.outcome


@pytest.mark.anyio
class ContextContract:
    """What links the spans of those who fetch to those who sent."""

    @pytest.fixture
    def recorder(self) -> Recorder:
        return Recorder()

    @pytest.fixture
    async def recorded(
        self, anyio_backend: str, stores: Stores, clock: ManualClock, recorder: Recorder
    ) -> AsyncIterator[Stage]:
        """One process whose components have spans."""
        async with staged(stores, clock, open_spans=recorder.open) as opened:
            yield opened

    @pytest.mark.parametrize("tier", [Outcome.HOT, Outcome.COLD])
    async def test_a_fetch_is_linked_to_the_trace_of_its_message(
        self, recorded: Stage, recorder: Recorder, tier: Outcome
    ) -> None:
        """One message alone has the span ``deliver`` in its trace as well."""
        if tier is Outcome.HOT:
            await recorded.connect()
        assert await put(recorded, message(recorded, "m1")) is tier
        (queued,) = await recorded.queue.fetch(BOB, 10)
        fetch, deliver = recorder.one("fetch"), recorder.one("deliver")
        assert linked(fetch) == [(TRACE, SPAN)]
        assert (ids(deliver)[0], parent(deliver), linked(deliver)) == (TRACE, SPAN, [ids(fetch)])
        assert queued.message.trace == TRACEPARENT

    async def test_a_page_is_linked_to_each_of_its_messages(self, recorded: Stage, recorder: Recorder) -> None:
        """And nobody else's; one that is in no trace has no link."""
        for sent in (message(recorded, "m1"), message(recorded, "m2", trace=OTHER), message(recorded, "m3", trace="")):
            await put(recorded, sent)
        await put(recorded, message(recorded, "m1", EVE, f"00-{'ab' * 16}-{SPAN}-01"))
        assert await recorded.ids() == ["m1", "m2", "m3"]
        assert linked(recorder.one("fetch")) == [(TRACE, SPAN), (TRACE[::-1], SPAN)]
        assert recorder.named("deliver") == []
        assert await recorded.ids(EVE) == ["m1"]
        assert linked(recorder.named("fetch")[1]) == [("ab" * 16, SPAN)]

    async def test_hot_mail_takes_its_trace_to_cold(self, recorded: Stage, recorder: Recorder) -> None:
        connection = await recorded.connect()
        await put(recorded, message(recorded, "m1"))
        await recorded.online.disconnect([connection])
        await recorded.migrator.migrate(BOB)
        assert await recorded.in_cold() == ["m1"]
        assert await recorded.ids() == ["m1"]
        assert linked(recorder.one("fetch")) == [(TRACE, SPAN)]
        assert parent(recorder.one("move")) is None

    async def test_without_traces_a_message_that_has_one_is_served_as_always(
        self, recorded: Stage, stores: Stores, clock: ManualClock
    ) -> None:
        """Another process, which nobody asks for traces, reads, moves and acknowledges it."""
        connection = await recorded.connect()
        await put(recorded, message(recorded, "m1"))
        async with staged(stores, clock) as plain:
            assert isinstance(plain.queue, CompositeMessageQueue)
            assert await plain.ids() == ["m1"]
            await plain.online.disconnect([connection])
            await plain.migrator.migrate(BOB)
            assert await plain.ids() == ["m1"]
            await plain.queue.acknowledge(BOB, ["m1"])
            assert await plain.ids() == []


@pytest.mark.anyio
class StepContract:
    """Mail moves by steps, from one store to the other."""

    async def test_what_moves_is_written_and_announced_in_its_trace(self, recorded: Stage, recorder: Recorder) -> None:
        connection = await recorded.connect()
        await put(recorded, message(recorded, "m1"))
        await put(recorded, message(recorded, "m2", trace=""))
        await recorded.online.disconnect([connection])
        await recorded.migrator.migrate(BOB)
        for name in ("cold write", "push"):
            assert (ids(recorder.one(name))[0], parent(recorder.one(name))) == (TRACE, SPAN)


class RememberedContract(ContextContract):
    """The online store remembers traces apart from the messages."""

    async def test_an_acknowledgement_is_linked_and_ends_it(self, recorded: Stage, recorder: Recorder) -> None:
        await put(recorded, message(recorded, "m1"))
        await put(recorded, message(recorded, "m2", trace=OTHER))
        await recorded.queue.acknowledge(BOB, ["m1", "unknown"])
        assert await recorded.queue.next(BOB, ["m2"], 10) == []
        assert linked(recorder.one("ack")) == [(TRACE, SPAN)]
        assert linked(recorder.one("fetch")) == [(TRACE[::-1], SPAN)]
        contexts = recorded.factory.backends.online().trace_contexts()
        assert contexts is not None
        assert await contexts.find(BOB, ["m1", "m2"]) == {}

    async def test_what_is_remembered_is_found_by_its_recipient_and_id(self, recorded: Stage) -> None:
        contexts = recorded.factory.backends.online().trace_contexts()
        assert contexts is not None
        await contexts.keep([message(recorded, "m1"), message(recorded, "m1", EVE, OTHER), message(recorded, "m2")])
        assert await contexts.find(BOB, ["m1", "unknown", "m2"]) == {"m1": TRACEPARENT, "m2": TRACEPARENT}
        assert await contexts.take(BOB, ["m1", "unknown"]) == {"m1": TRACEPARENT}
        assert await contexts.find(BOB, ["m1", "m2"]) == {"m2": TRACEPARENT}
        assert await contexts.find(EVE, ["m1"]) == {"m1": OTHER}
        await contexts.keep([message(recorded, "m2", trace=OTHER)])
        assert await contexts.find(BOB, ["m2"]) == {"m2": OTHER}
