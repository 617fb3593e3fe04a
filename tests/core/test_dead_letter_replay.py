"""Which dead letters are replayed, and what becomes of the others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from router.core.dead_letter_replay import REFUSED, Replayer, message_of
from router.dead_reasons import DeadReason
from router.errors import RouterError, Unavailable
from router.interfaces import LetterPage, Receipt
from router.messages import DeadLetter, Lane, Message, QueueTotals
from tests.contract.stage import BOB, EVE, envelope
from tests.support.clock import ManualClock

pytestmark = pytest.mark.anyio
DAY_SECONDS = 86_400


class Letters:
    """In memory; each page has one letter."""

    def __init__(self, *letters: DeadLetter) -> None:
        self.held: dict[Receipt, DeadLetter] = dict(enumerate(letters))

    async def pages(self) -> AsyncGenerator[LetterPage]:
        yield list(self.held.items())

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            del self.held[receipt]


class Producer:
    """Takes ``room`` messages, then none."""

    def __init__(self, room: int = 100) -> None:
        self.published: list[Message] = []
        self._room = room

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        if len(self.published) + len(messages) > self._room:
            raise Unavailable("no room")
        self.published.extend(messages)
        return [None] * len(messages)

    async def probe(self) -> None: ...

    async def backlog(self) -> QueueTotals | None: ...


def letter(id_: str, reason: DeadReason = DeadReason.QUEUE_FULL, *, user: str = BOB, body: bytes = b"") -> DeadLetter:
    return DeadLetter(id_, user, reason, "", body or envelope(user, Lane.EXPRESS, ephemeral=False), 1, 7)


async def replayed(letters: Letters, producer: Producer, *reasons: DeadReason, at: float = 0) -> dict[str, int]:
    replayer = Replayer(letters, producer, ManualClock(7 + int(at * 1_000_000)), DAY_SECONDS)
    done = await replayer.replay(reasons or REFUSED, dry_run=False)
    counts = (done.replayed, done.passed_over, done.remembered, done.unreadable)
    return dict(zip(("replayed", "passed over", "remembered", "unreadable"), counts, strict=True))


async def test_what_was_too_much_is_replayed_unless_told_otherwise() -> None:
    letters = Letters(letter("a"), letter("b", DeadReason.INBOUND_EXHAUSTED), letter("c", DeadReason.UNDECODABLE))
    assert await replayed(letters, Producer()) == {"replayed": 2, "passed over": 1, "remembered": 0, "unreadable": 0}


async def test_of_each_recipient_the_letters_keep_their_order() -> None:
    letters, producer = Letters(letter("a"), letter("x", user=EVE), letter("b"), letter("c")), Producer()
    assert (await replayed(letters, producer))["replayed"] == 4
    assert [one.id for one in producer.published if one.recipient == BOB] == ["a", "b", "c"]
    assert not letters.held
    (first, *_) = producer.published
    assert (first.lane, first.keyed, first.accepted_at) == (Lane.EXPRESS, True, 7)


async def test_a_letter_goes_only_when_its_publish_is_confirmed() -> None:
    letters = Letters(letter("a"), letter("b"), letter("c"))
    with pytest.raises(Unavailable):
        await replayed(letters, Producer(room=2))
    assert [one.id for one in letters.held.values()] == ["c"]


@pytest.mark.parametrize("reason", [DeadReason.ATTEMPTS_EXHAUSTED, DeadReason.UNSTORABLE, DeadReason.DAMAGED])
async def test_what_may_be_remembered_as_gone_waits_for_a_day(reason: DeadReason) -> None:
    """Its tombstone would swallow the message, and the letter would be gone."""
    letters = Letters(letter("a", reason), letter("b"))
    counts = await replayed(letters, producer := Producer(), *REFUSED, reason, at=DAY_SECONDS - 1)
    assert (counts["replayed"], counts["remembered"], [one.id for one in producer.published]) == (1, 1, ["b"])
    assert (await replayed(letters, producer))["passed over"] == 1
    assert (await replayed(letters, producer, reason, at=DAY_SECONDS))["replayed"] == 1


@pytest.mark.parametrize("body", [b"no envelope", b'{"recipientId":"bob"}', envelope(EVE, Lane.NORMAL, False)])
async def test_what_is_no_envelope_for_its_recipient_stays(body: bytes) -> None:
    letters = Letters(letter("a", body=body))
    assert (await replayed(letters, Producer()))["unreadable"] == 1
    assert letters.held
    assert message_of(letter("", user=BOB)) is None, "nor what has no id"
