"""A refusal is published, then counted and told; one that is not published is neither."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.checksum import checksum
from router.core.dead_letters import Refuser
from router.core.dependencies import Silent
from router.dead_reasons import DeadReason
from router.errors import Unavailable
from router.messages import DeadLetter, Delivery, Lane, Message, Queued
from router.metrics import Metrics
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio
BOB = "urn:sm:user:bob"
MESSAGE = Message("m1", BOB, b"{}", Lane.EXPRESS, False, 1, False, checksum("m1", BOB, b"{}"))
UNREAD = Delivery(None, "r1", 3, body=b"\xff")


class Seen(Silent):
    """Dead letters, and who is told of them."""

    def __init__(self) -> None:
        self.published: list[DeadLetter] = []
        self.told: list[DeadLetter] = []
        self.works = True

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        if not self.works:
            raise Unavailable("simulated")
        self.published += letters

    def dead_letter(self, letter: DeadLetter) -> None:
        self.told.append(letter)


@pytest.mark.parametrize(
    ("refused", "id_", "recipient", "body", "attempts"),
    [
        (Queued(MESSAGE, 7, 8, attempts=2), "m1", BOB, b"{}", 2),
        (Delivery(MESSAGE, "r1", 3), "m1", BOB, b"{}", 3),
        (UNREAD, "r1", "", b"\xff", 3),
        (Delivery(None, "r1", 3, body=b"\xff", origin="m2", recipient=BOB), "m2", BOB, b"\xff", 3),
    ],
)
async def test_a_letter_says_what_was_refused(
    refused: Queued | Delivery, id_: str, recipient: str, body: bytes, attempts: int
) -> None:
    seen, metrics, clock = Seen(), Metrics(), ManualClock()
    await Refuser(seen, clock=clock, metrics=metrics, reports=seen).refuse(refused, DeadReason.DAMAGED, "why")
    letter = DeadLetter(id_, recipient, DeadReason.DAMAGED, "why", body, attempts, clock.now())
    assert seen.published == seen.told == [letter]
    assert metrics.registry.get_sample_value("router_dead_letters_total", {"reason": "damaged"}) == 1


async def test_nobody_is_told_of_a_letter_that_is_not_published() -> None:
    seen, metrics = Seen(), Metrics()
    seen.works = False
    with pytest.raises(Unavailable):
        await Refuser(seen, clock=ManualClock(), metrics=metrics, reports=seen).refuse(
            UNREAD, DeadReason.UNDECODABLE, "why"
        )
    assert seen.told == []
    assert metrics.registry.get_sample_value("router_dead_letters_total", {"reason": "undecodable"}) == 0
