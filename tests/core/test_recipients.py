"""Who is busy, what waits behind them, and who shares a batch with whom."""

from __future__ import annotations

import pytest

from router.core.deliveries import InFlight, received
from router.core.outcomes import apart
from router.core.recipients import MUCH_BYTES, MUCH_MESSAGES, Recipients, portions
from router.messages import Delivery, Lane, Message, Outcome, Routed


def mail(names: str, size: int = 1) -> list[InFlight]:
    """One for each of ``names``: its first letter is its recipient's."""
    return [
        received(Delivery(Message(name, name[0], b"." * size, Lane.NORMAL, ephemeral=False, accepted_at=0), name, 1))
        for name in names.split()
    ]


def receipts(flights: list[InFlight]) -> str:
    return " ".join(str(flight.delivery.receipt) for flight in flights)


def test_a_recipient_is_free_when_all_their_messages_in_work_are_done() -> None:
    recipients = Recipients()
    first = mail("a1 b1 a2")
    assert recipients.begin(first) == first
    assert recipients.begin(mail("a3 b2 c1 a4")) == mail("c1")
    assert recipients.end(mail("a1")) == []
    assert recipients.end(mail("b1 c1")) == mail("b2")
    assert recipients.end(mail("a2")) == mail("a3 a4")
    assert recipients.begin(mail("b3 c2")) == mail("c2")
    assert recipients.end(mail("a3 a4 b2 c2")) == mail("b3")
    assert recipients.end(mail("b3")) == []
    assert not recipients


def test_what_is_put_back_is_the_first_to_wait() -> None:
    recipients = Recipients()
    recipients.begin(mail("a1 a2 a3"))
    recipients.begin(mail("a4"))
    recipients.put_back(mail("a2 a3"))
    assert recipients.behind(mail("a1")[0]) == mail("a2 a3 a4")
    assert recipients.end(mail("a1")) == mail("a2 a3 a4")


def test_those_who_get_much_are_alone() -> None:
    many, large = mail(" ".join(f"a{number}" for number in range(MUCH_MESSAGES + 1))), mail("b1", MUCH_BYTES + 1)
    little = [*mail("c1"), *mail(" ".join(f"d{number}" for number in range(MUCH_MESSAGES))), *mail("e1", MUCH_BYTES)]
    mixed = [little[0], *large, *many, *little[1:]]
    assert portions(mixed) == [little, large, many]
    assert portions(many) == [many]
    assert portions([]) == []


@pytest.mark.parametrize(
    ("outcomes", "parts"),
    [
        ({"a1": "hot", "b1": "hot"}, ["a1 b1"]),
        ({"a1": "hot", "b1": "cold", "c1": "hot", "d1": "cold"}, ["a1 c1", "b1 d1"]),
        ({"a1": "cold", "b1": "cold", "a2": "dropped-offline", "c1": "dropped-offline"}, ["a1 a2", "b1", "c1"]),
        ({"a1": "queue-full", "b1": "queue-full", "c1": "cold"}, ["a1", "b1", "c1"]),
        ({"a1": "cold", "b1": "queue-full", "a2": "cold", "b2": "cold"}, ["a1 a2", "b1 b2"]),
    ],
)
def test_those_who_are_owed_the_same_stay_together(outcomes: dict[str, str], parts: list[str]) -> None:
    flights = mail(" ".join(outcomes))
    for flight, outcome in zip(flights, outcomes.values(), strict=True):
        flight.routed = Routed(Outcome(outcome))
    assert [receipts(part) for part in apart(flights)] == parts
