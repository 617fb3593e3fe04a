"""The judge on good and bad histories. Moments are bare numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.bench.ledger import EXAMPLES, Fault, Ledger

BOB = "urn:sm:user:bob"


def sent(ledger: Ledger, *ids: str, at: int = 0) -> list[tuple[int, str]]:
    """One after another, each begun when the one before was answered; as a page would bring them."""
    page = []
    for place, id_ in enumerate(ids):
        number = ledger.begin(at + 10 * place)
        ledger.accepted(number, id_, at + 10 * place + 5)
        page.append((number, id_))
    return page


def faults(ledger: Ledger) -> dict[Fault, int]:
    ledger.close()
    return {fault: count for fault, count in ledger.faults.items() if count}


def test_all_in_order_is_no_fault() -> None:
    ledger = Ledger(BOB)
    page = sent(ledger, "a", "b", "c")
    assert (ledger.missing, ledger.left) == (3, 3)
    assert ledger.returned(page[:2], 100) == [0, 1]
    assert (ledger.missing, ledger.left) == (1, 3)
    assert ledger.acknowledged(["a", "b"], 110) == [0, 1]
    assert ledger.returned(page[2:], 120) == [2]
    assert ledger.acknowledged(["c"], 130) == [2]
    assert (ledger.missing, ledger.left, ledger.done_count, ledger.accepted_count) == (0, 0, 3, 3)
    assert faults(ledger) == {}


def test_what_was_accepted_and_never_came_is_lost() -> None:
    ledger = Ledger(BOB)
    ledger.returned(sent(ledger, "a", "b", "c")[::2], 100)
    assert faults(ledger) == {Fault.LOST: 1}
    assert ledger.examples == [f"b of {BOB}: lost"]


def test_what_was_never_accepted_is_not_lost() -> None:
    ledger = Ledger(BOB)
    ledger.begin(0)
    assert (ledger.missing, ledger.left) == (0, 0)
    assert faults(ledger) == {}


def test_a_message_may_return_before_its_send_is_answered() -> None:
    ledger = Ledger(BOB)
    number = ledger.begin(0)
    assert ledger.returned([(number, "a")], 1) == [number]
    assert ledger.left == 1
    assert ledger.acknowledged(["a"], 2) == [number]
    ledger.accepted(number, "a", 3)
    assert (ledger.missing, ledger.left, ledger.done_count) == (0, 0, 1)
    assert faults(ledger) == {}


@pytest.mark.parametrize("pages", [[[1, 0]], [[1], [0]], [[2], [0, 1]], [[0, 2, 1]]])
def test_a_later_message_may_not_overtake(pages: Sequence[Sequence[int]]) -> None:
    ledger = Ledger(BOB)
    known = sent(ledger, "a", "b", "c")
    for asked, page in enumerate(pages, 100):
        ledger.returned([known[number] for number in page], asked)
    assert Fault.OUT_OF_ORDER in faults(ledger)


def test_sends_that_overlapped_may_come_in_either_order() -> None:
    ledger = Ledger(BOB)
    first, second = ledger.begin(0), ledger.begin(1)
    ledger.accepted(second, "b", 5)
    ledger.accepted(first, "a", 6)
    ledger.returned([(second, "b"), (first, "a")], 10)
    assert faults(ledger) == {}


def test_a_send_that_began_at_the_very_moment_of_an_answer_overlapped() -> None:
    ledger = Ledger(BOB)
    first = ledger.begin(0)
    ledger.accepted(first, "a", 5)
    second = ledger.begin(5)
    ledger.returned([(second, "b"), (first, "a")], 10)
    assert faults(ledger) == {}


def test_again_before_the_acknowledgement_was_answered_is_a_redelivery() -> None:
    ledger = Ledger(BOB)
    page = sent(ledger, "a", "b")
    ledger.returned(page, 100)
    assert ledger.returned(page, 101) == []
    ledger.acknowledged(["a", "b"], 110)
    # A fetch that was under way when the acknowledgement was answered may have read before it.
    ledger.returned(page, 109)
    assert ledger.redelivered_count == 4
    assert faults(ledger) == {}


def test_a_redelivery_keeps_its_order_too() -> None:
    ledger = Ledger(BOB)
    page = sent(ledger, "a", "b")
    ledger.returned(page, 100)
    ledger.returned(page[::-1], 101)
    assert faults(ledger) == {Fault.OUT_OF_ORDER: 1}


def test_a_redelivery_behind_new_mail_that_overtook_is_one_fault() -> None:
    ledger = Ledger(BOB)
    a, b, c = sent(ledger, "a", "b", "c")
    ledger.returned([b, c], 100)
    ledger.returned([a, b, c], 101)
    assert faults(ledger) == {Fault.OUT_OF_ORDER: 1}


def test_again_after_the_acknowledgement_was_answered_is_a_fault() -> None:
    ledger = Ledger(BOB)
    page = sent(ledger, "a")
    ledger.returned(page, 100)
    ledger.acknowledged(["a"], 110)
    ledger.returned(page, 110)
    assert faults(ledger) == {Fault.CAME_BACK: 1}
    assert ledger.acknowledged(["a"], 120) == []


def test_a_second_id_is_a_fault_once_for_each_id() -> None:
    ledger = Ledger(BOB)
    page = sent(ledger, "a")
    ledger.returned([*page, (0, "x")], 100)
    ledger.returned([*page, (0, "x")], 101)
    assert faults(ledger) == {Fault.SECOND_ID: 1}


def test_another_id_than_that_of_the_answer_is_a_fault() -> None:
    late, early = Ledger(BOB), Ledger(BOB)
    sent(late, "a")
    late.returned([(0, "x")], 100)
    early.begin(0)
    early.returned([(0, "x")], 1)
    early.accepted(0, "a", 2)
    assert faults(late) == faults(early) == {Fault.SECOND_ID: 1}
    assert late.missing == early.missing == 0


def test_one_id_for_two_messages_is_a_fault() -> None:
    ledger = Ledger(BOB)
    sent(ledger, "a", "a")
    assert faults(ledger)[Fault.SECOND_ID] == 1


@pytest.mark.parametrize("number", [-1, 1])
def test_a_number_that_was_never_sent_to_them_is_somebody_elses(number: int) -> None:
    ledger = Ledger(BOB)
    ledger.returned([*sent(ledger, "a"), (number, "x")], 100)
    assert faults(ledger) == {Fault.SOMEBODY_ELSES: 1}


def test_all_faults_are_counted_and_some_are_told() -> None:
    ledger = Ledger(BOB)
    sent(ledger, *map(str, range(10)))
    assert faults(ledger) == {Fault.LOST: 10}
    assert len(ledger.examples) == EXAMPLES
