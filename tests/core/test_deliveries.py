"""The deliveries that a pipeline has in flight."""

from __future__ import annotations

from router.core.deliveries import Deliveries, InFlight, Step, received
from router.core.outcomes import STEPS
from router.messages import Delivery, Lane, Message, Outcome


def mail(*receipts: int) -> list[Delivery]:
    return [
        Delivery(Message(f"m{receipt}", "bob", b"." * 10, Lane.NORMAL, ephemeral=False, accepted_at=0), receipt, 1)
        for receipt in receipts
    ]


def receipts(flights: list[InFlight]) -> list[int | str]:
    return [flight.delivery.receipt for flight in flights]


def test_what_is_owed_is_held_no_longer_and_told_of_in_its_order() -> None:
    deliveries = Deliveries()
    first, second, third = deliveries.receive(mail(1, 2, 3))
    assert receipts(deliveries.mark_owed([second])) == [2]
    assert receipts(deliveries.mark_owed([first])) == [1]
    deliveries.receive(mail(4))
    assert (deliveries.held, deliveries.held_bytes, deliveries.owed) == (2, 20, 2)
    assert receipts(deliveries.oldest_owed(1)) == [2]
    assert receipts(deliveries.oldest_owed(9)) == [2, 1]
    assert [delivery.receipt for delivery in deliveries.unacknowledged()] == [3, 4, 2, 1]
    assert receipts(deliveries.still_held([first, second, third])) == [3]
    assert receipts(deliveries.let_go([second, third])) == [3], "what was owed was not held"
    assert (deliveries.held, deliveries.held_bytes, deliveries.owed) == (1, 10, 1)


def test_what_comes_again_is_in_flight_already_also_when_it_is_owed() -> None:
    deliveries = Deliveries()
    deliveries.mark_owed(deliveries.receive(mail(1)))
    assert deliveries.receive(mail(1, 2, 2)) == [received(delivery) for delivery in mail(2)]
    assert (deliveries.held, deliveries.owed) == (1, 1)


def test_it_says_how_far_they_have_come() -> None:
    deliveries = Deliveries()
    assert repr(deliveries) == "<Deliveries: none>"
    first, *_ = deliveries.receive([*mail(1, 2), Delivery(None, 3, 1, "no message")])
    first.step = Step.TRIED
    assert repr(deliveries) == "<Deliveries: 1 TRIED, 1 RECEIVED, 1 REFUSED>"


def test_each_outcome_leads_somewhere() -> None:
    assert set(STEPS) == set(Outcome)
