"""The embedded backend keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.messages import Connection
from tests.contract.damage import DamageContract
from tests.contract.ingress import IngressContract
from tests.contract.notices import PokeContract, PushContract
from tests.contract.pipeline import PipelineContract
from tests.contract.queues import QueueContract
from tests.contract.records import RecordContract
from tests.contract.stage import BOB, Stage
from tests.support.stores import EmbeddedStores


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


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
what_was_on_its_way_and_is_acknowledged_holds_up_nothing a_fetch_misses_nothing_that_moves_meanwhile
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
