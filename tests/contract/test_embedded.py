"""The embedded backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.config import Config
from router.core.message_story import Cause, What, Where
from router.messages import Connection, Lane
from tests.contract.contexts import RememberedContract, StepContract
from tests.contract.damage import DamageContract
from tests.contract.ingress import IngressContract
from tests.contract.notices import PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.purging import PurgeContract, purge
from tests.contract.queues import QueueContract
from tests.contract.records import RecordContract
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.contract.traces import StepTraceContract, TraceContract, at, causes, story_of, traced
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import CAP, Durability, EmbeddedStores


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


class RememberingStores(EmbeddedStores):
    """With ``embedded.remember_acknowledged``."""

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        config = super().config(cap=cap, durability=durability)
        embedded = config.embedded.model_copy(update={"remember_acknowledged": True})
        return config.model_copy(update={"embedded": embedded})


class Piped:
    """What is accepted waits in the ingress for a pipeline, as where push commands go elsewhere."""

    @pytest.fixture(autouse=True)
    def _piped(self, piped: None) -> None: ...


BY_STEPS = """
no_more_orphans_than_are_asked_for a_move_takes_no_more_than_is_asked_for one_id_at_two_recipients_in_one_batch
an_acknowledgement_reads_no_page what_left_by_a_clock_that_was_behind_is_remembered
what_was_acknowledged_by_a_clock_far_ahead_leaves_cold what_was_acknowledged_just_now_is_somebody_elses_to_delete
what_leaves_gives_its_bytes_back what_comes_to_one_recipient_has_a_budget
acknowledged_express_mail_that_is_still_in_cold_takes_no_place what_was_acknowledged_does_not_come_back
a_redelivery_may_have_left_a_copy_in_cold a_tombstone_has_its_time
a_migration_lease_of_a_clock_that_was_ahead_keeps_no_orphans migration_is_bounded_and_announces_once
a_migrator_that_dies_is_followed_by_another an_acknowledgement_in_mid_move_holds
a_copy_whose_deletion_nobody_owes_is_deleted_once_a_fetch_finds_it a_copy_of_a_migration_that_fails_is_deleted
a_fetch_misses_nothing_that_moves_meanwhile
a_full_page_that_is_acknowledged_meanwhile_leaves_room_for_what_is_behind
normal_mail_that_is_acknowledged_meanwhile_leaves_its_place_to_normal_mail
of_two_with_one_place_the_second_is_not_passed_over retention_ends_the_wait_for_what_was_never_settled
retention_that_dies_between_its_steps_is_completed mail_that_was_routed_without_the_store_is_told_to_it
a_copy_that_nobody_told_of_is_told_by_the_sweeper write_through_keeps_a_copy_in_cold
a_copy_that_comes_after_the_acknowledgement_is_deleted a_failure_before_copies_are_deleted_loses_nothing
"""
"""What these tests force comes between two steps of what is one step where one file holds all, or redelivers what
nobody can deliver again there. ``test_embedded_direct`` has what is promised instead."""


class TestEmbeddedDirectQueues(QueueContract):
    """Over one SQLite file that holds all that a message passes, and over two connections to it."""


for _name in BY_STEPS.split():
    assert hasattr(TestEmbeddedDirectQueues, f"test_{_name}")
    setattr(TestEmbeddedDirectQueues, f"test_{_name}", None)


class TestEmbeddedQueues(Piped, QueueContract):
    """Over one SQLite file, and over two connections to it."""

    async def test_nothing_waits_for_a_user_who_was_never_seen(self, stage: Stage) -> None:
        """Cold is in the same file, so nobody needs to read it to know."""
        assert not await stage.online.connect(Connection(BOB, "c1", "node", 0), 9)


class TestEmbeddedDirectContexts(RememberedContract):
    """As ``TestEmbeddedDirectQueues``."""


class TestEmbeddedContexts(Piped, StepContract, RememberedContract):
    """As ``TestEmbeddedQueues``."""


class TestEmbeddedIngress(Piped, IngressContract):
    """A table, and one consumer at a time."""


class TestEmbeddedPush(PushContract):
    """Two tables."""


class TestEmbeddedPokes(PokeContract):
    """Unix datagrams."""


class TestEmbeddedPipeline(Piped, PipelineContract):
    """All of it in one file."""


class TestEmbeddedDamage(Piped, DamageContract):
    """In one file."""


class TestEmbeddedDirectDamage(DamageContract):
    """In one file that holds all that a message passes."""

    test_it_is_a_dead_letter_and_the_rest_flows = None
    test_a_pipeline_that_tells_of_it_too_late_is_told_that_it_is_gone = None  # type: ignore[assignment]  # likewise


class TestEmbeddedRecords(Piped, RecordContract):
    """In a table of the file."""


class TestEmbeddedTraces(Piped, StepTraceContract):
    """From one moment of the file."""

    async def test_mail_that_waits_in_the_ingress(self, stage: Stage) -> None:
        await stage.producer.publish([stage.message("m1"), stage.message("m2", EVE), stage.message("m3")])
        (story,) = (await traced(stage, "m3", None)).stories
        assert (story.where, story.lane, story.ahead) == (Where.WAITING, Lane.NORMAL, 1)
        assert causes(story) == [Cause.NOT_ROUTED, Cause.BEHIND]
        assert at(story, What.ACCEPTED) == [stage.clock.now()]


class TestEmbeddedDirectTraces(TraceContract):
    """Where one file holds all that a message passes."""

    async def test_what_is_acknowledged_without_a_key_is_unknown_at_once(self, stage: Stage) -> None:
        await stage.connect()
        await stage.producer.publish([stage.message("m1")])
        assert (await story_of(stage, "m1")).where is Where.HOT
        await stage.queue.acknowledge(BOB, ["m1"])
        assert (await traced(stage, "m1", None)).stories == []
        assert (await stage.factory.message_tracer()).memory.plain == 0

    @pytest.mark.anyio
    async def test_what_is_acknowledged_is_remembered_where_that_is_asked_for(
        self, tmp_path: Path, clock: ManualClock
    ) -> None:
        """For its time, and no longer; the next message finds nothing changed."""
        async with staged(RememberingStores(tmp_path), clock) as stage:
            await stage.connect()
            await stage.producer.publish([stage.message("m1"), stage.message("m2")])
            await stage.queue.acknowledge(BOB, ["m1"])
            story = await story_of(stage, "m1")
            assert (story.where, at(story, What.LEFT)) == (Where.GONE, [clock.now()])
            assert (await stage.factory.message_tracer()).memory.plain == 3600
            assert await stage.ids() == ["m2"]
            clock.advance(3601)
            await stage.online.purge(100, clock.now())
            assert (await traced(stage, "m1", None)).stories == []

    async def test_a_dead_letter_says_why(self, stage: Stage) -> None:
        await stage.fill(BOB)
        await stage.producer.publish([stage.message("m1")])
        (story,) = (await traced(stage, "m1", None)).stories
        assert (story.where, causes(story)) == (Where.DEAD_LETTER, [Cause.REFUSED])
        assert "replay" in story.holds[0].text
        assert at(story, What.REFUSED) == [stage.clock.now()]

    async def test_a_push_command_that_nobody_takes(self, stage: Stage) -> None:
        await stage.producer.publish([stage.message("m1")])
        assert Cause.PUSH_WAITS in {hold.cause for hold in (await story_of(stage, "m1")).holds}
        outbox = await stage.factory.outbox()
        await outbox.remove([entry.number for entry in await outbox.list(0, 10)])
        story = await story_of(stage, "m1")
        assert (story.announced, causes(story)) == (True, [Cause.OFFLINE])
        assert Cause.PUSH_WAITS not in {hold.cause for hold in story.holds}


class TestEmbeddedPurge(Piped, PurgeContract):
    """Of all tables of the file."""

    async def test_what_waits_in_ingress_and_outbox_goes(self, stage: Stage) -> None:
        for user in (BOB, EVE):
            await stage.producer.publish([stage.message("m1", user), stage.message("m2", user)])
            await (await stage.factory.push_notifier()).publish([stage.message("m3", user)])
        done = await purge(stage)
        assert (done.complete, done.ingress, done.commands) == (True, 2, 1)
        left = await stage.producer.backlog()
        assert left is not None
        assert (left.messages, left.users) == (2, 1)
        assert await stage.pushed() == ["m3"]


class TestEmbeddedDirectPurge(PurgeContract):
    """Where each step of a message is one transaction."""

    async def test_the_books_balance_afterwards(self, stage: Stage) -> None:
        for id_ in ("m1", "m2"):
            await stage.go(id_)
        await stage.route(stage.message("dies"))
        await stage.go("m1", EVE)
        auditor = (await opened(stage.factory, EmbeddedBackend)).auditor()
        assert auditor is not None
        before, _ = await auditor.books()
        assert (before.accepted, before.queued, before.missing) == (4, 4, 0)
        assert (await purge(stage)).complete
        after, unbalanced = await auditor.books()
        assert (after.accepted, after.acknowledged, after.queued, unbalanced) == (4, 3, 1, [])
