"""What became of one message, as ``router trace`` finds it: one story on every backend. A backend's test
subclasses this unchanged."""

from __future__ import annotations

import pytest

from router.core.message_story import Cause, Story, What, Where
from router.core.message_tracer import Trace
from router.factory import needs_recipient
from router.messages import Lane, Move, Outcome
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage

pytestmark = pytest.mark.anyio
UNHURRIED = 90


async def traced(stage: Stage, id_: str, user: str | None = BOB) -> Trace:
    trace = await (await stage.factory.message_tracer()).trace(id_, user, lambda _: None)
    assert trace.silent == []
    return trace


async def story_of(stage: Stage, id_: str, user: str = BOB) -> Story:
    (story,) = (await traced(stage, id_, user)).stories
    assert story.recipient == user
    return story


def causes(story: Story) -> list[Cause]:
    """What holds the message up, but for whether a router runs, which no test's components tell."""
    return [hold.cause for hold in story.holds if hold.cause not in (Cause.NO_ROUTER, Cause.PUSH_WAITS)]


def at(story: Story, what: What) -> list[int]:
    return [one.at for one in story.happened if one.what is what]


class TraceContract:
    """From what is known already, and without a change of it."""

    async def test_mail_that_a_connected_recipient_has_not_fetched(self, stage: Stage) -> None:
        """Its place and times are those that it was routed with, and what stands in front of it is its lane's."""
        await stage.connect()
        assert await stage.ids() == []
        accepted_at = stage.clock.now()
        messages = [stage.message(id_, keyed=id_ == "m2") for id_ in ("m1", "m2")]
        express = stage.message("express", lane=Lane.EXPRESS)
        stage.clock.advance(1)
        (_, routed, _) = await stage.route(messages[0], messages[1], express)
        story = await story_of(stage, "m2")
        assert (story.where, story.lane, story.sequence) == (Where.HOT, Lane.NORMAL, routed.sequence)
        assert (story.keyed, story.ephemeral, story.attempts, story.announced) == (True, False, 1, False)
        assert (story.bytes, story.ahead) == (len(messages[1].envelope), 1)
        assert at(story, What.ACCEPTED) == [accepted_at]
        assert at(story, What.ROUTED) == at(story, What.POKED) == [stage.clock.now()]
        assert causes(story) == [Cause.NOT_FETCHED, Cause.BEHIND]
        assert [hold.since for hold in story.holds if hold.cause is Cause.NOT_FETCHED] == [stage.clock.now()]
        assert (await story_of(stage, "express")).ahead == 0

    async def test_mail_that_was_fetched_and_not_acknowledged(self, stage: Stage) -> None:
        await stage.connect()
        await stage.go("m1")
        assert await stage.ids() == ["m1"]
        await stage.ids()  # a later fetch answers what the first one of a user whose cold queue is unknown does not
        assert causes(await story_of(stage, "m1")) == [Cause.NOT_ACKNOWLEDGED]

    async def test_mail_of_a_recipient_who_is_offline(self, stage: Stage) -> None:
        for id_ in ("m1", "m2", "m3"):
            assert await stage.go(id_) is Outcome.COLD
        story = await story_of(stage, "m3")
        assert (story.where, story.ahead, story.attempts, story.ephemeral) == (Where.COLD, 2, 1, False)
        assert causes(story) == [Cause.OFFLINE, Cause.BEHIND]
        assert at(story, What.ROUTED) == [stage.clock.now()]

    async def test_since_when_a_recipient_is_offline(self, stage: Stage) -> None:
        """Since their last connection was closed, or its lease ran out, whether somebody has noticed that or not."""
        since = stage.clock.now

        async def offline_since(id_: str) -> list[int]:
            return [hold.since for hold in (await story_of(stage, id_)).holds if hold.cause is Cause.OFFLINE]

        await stage.go("m1")
        assert await offline_since("m1") == [0], "nobody has ever seen them"
        phone, laptop = await stage.connect(), await stage.connect(name="laptop")
        assert await offline_since("m1") == []
        stage.clock.advance(1)
        await stage.online.disconnect([phone])
        assert await offline_since("m1") == []
        stage.clock.advance(1)
        await stage.online.disconnect([laptop])
        closed_at = since()
        await stage.queue.acknowledge(BOB, ["m1"])
        stage.clock.advance(UNHURRIED)
        for earliest in (stage.clock.now(), closed_at - 1, 0):  # that it may be, by clocks that are not sure
            await stage.online.purge(100, earliest)
        await stage.go("m2")
        assert await offline_since("m2") == [closed_at], "it is remembered for a while also where nothing is queued"

        for notice in ("nobody", "sweeper", "routing"):
            await stage.connect(name=notice)
            (connection,) = await stage.online.connections(BOB)
            stage.clock.advance(UNHURRIED)
            if notice == "sweeper":
                await stage.online.expire(10)
            elif notice == "routing":
                await stage.go("m3")
            assert await offline_since("m2") == [connection.lease_until], notice

    async def test_a_write_to_cold_that_is_not_confirmed_holds_up_what_is_behind_it(self, stage: Stage) -> None:
        await stage.route(stage.message("m1"), stage.message("express", lane=Lane.EXPRESS))
        await stage.go("m2")
        assert (await story_of(stage, "m1")).where is Where.PENDING
        assert causes(await story_of(stage, "m1")) == [Cause.PENDING_WRITE, Cause.OFFLINE]
        story = await story_of(stage, "m2")
        assert causes(story) == [Cause.BEHIND_PENDING, Cause.OFFLINE]
        (behind,) = [hold.text for hold in story.holds if hold.cause is Cause.BEHIND_PENDING]
        assert behind.startswith("behind 1 message "), "the other one is of the other lane"

    async def test_mail_that_was_moved_is_cold_and_its_recipient_offline(self, stage: Stage) -> None:
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        await stage.migrator.migrate(BOB, online_too=False)
        story = await story_of(stage, "m1")
        assert (story.where, story.announced) == (Where.COLD, True)
        assert causes(story) == [Cause.OFFLINE]

    async def test_what_was_acknowledged_and_when(self, stage: Stage) -> None:
        """Under its Idempotency-Key every backend remembers it."""
        await stage.connect()
        await stage.route(stage.message("m1", keyed=True))
        stage.clock.advance(UNHURRIED)
        await stage.queue.acknowledge(BOB, ["m1"])
        acknowledged_at = stage.clock.now()
        stage.clock.advance(UNHURRIED)
        story = await story_of(stage, "m1")
        assert (story.where, story.keyed, story.holds) == (Where.GONE, True, [])
        assert "acknowledged" in story.text
        assert at(story, What.LEFT) == [acknowledged_at]

    async def test_an_id_is_traced_for_each_recipient(self, stage: Stage) -> None:
        """By its id alone, where the online store can, or by its recipient."""
        await stage.go("m1")
        await stage.go("m1", EVE)
        await stage.go("m2", EVE)
        assert (await traced(stage, "m2", BOB)).stories == []
        assert (await story_of(stage, "m1", EVE)).where is Where.COLD
        trace = await traced(stage, "m1", None)
        if needs_recipient(stage.factory.config):
            assert trace.stories == []
            assert "online" in {unsaid.place.role for unsaid in trace.unasked}
        else:
            assert {story.recipient for story in trace.stories} == {BOB, EVE}

    async def test_of_an_unknown_id_nothing_is_told(self, stage: Stage) -> None:
        await stage.go("m1")
        assert (await traced(stage, "never", BOB)).stories == []
        assert (await traced(stage, "never", None)).stories == []

    async def test_a_look_changes_nothing(self, stage: Stage) -> None:
        """The poke is still unanswered, and the message still there."""
        await stage.connect()
        await stage.go("m1")
        before = await stage.online.hot_users("", 10)
        assert (await story_of(stage, "m1")).where is Where.HOT
        assert await stage.online.hot_users("", 10) == before
        assert await stage.ids() == ["m1"]


class StepTraceContract(TraceContract):
    """Where a message takes several steps, a look can come between them."""

    async def test_mail_that_is_being_moved(self, stage: Stage) -> None:
        phone = await stage.connect()
        await stage.go("m1")
        await stage.online.disconnect([phone])
        assert isinstance(await stage.online.begin_move(BOB, "mover", 10, PAGE_BYTES, online_too=True), Move)
        story = await story_of(stage, "m1")
        assert (story.where, causes(story)) == (Where.HOT, [Cause.MOVING, Cause.OFFLINE])
        assert "mover" in story.holds[0].text or "mover" in story.holds[1].text
        stage.clock.advance(61)
        assert causes(await story_of(stage, "m1")) == [Cause.OFFLINE]

    async def test_what_is_acknowledged_is_remembered_without_a_key(self, stage: Stage) -> None:
        """Until its tombstone ends, and as gone."""
        await stage.connect()
        await stage.go("m1")
        await stage.queue.acknowledge(BOB, ["m1"])
        story = await story_of(stage, "m1")
        assert (story.where, at(story, What.LEFT)) == (Where.GONE, [stage.clock.now()])
