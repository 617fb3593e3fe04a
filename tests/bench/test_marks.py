"""Marks are read back, and by their own run only; pace says what is due; percentiles are nearest ranks."""

from __future__ import annotations

import json

import pytest

from router import envelope
from router.bench.latencies import Latencies
from router.bench.marks import LEAST_BYTES, Mark, Marks, Stray
from router.bench.pace import NANOSECONDS, Pace
from router.errors import EnvelopeTooLarge

BOB = "urn:sm:user:bob"
MARK = Mark(3, 70_000)


@pytest.mark.parametrize("size", [LEAST_BYTES, 1024])
def test_a_mark_is_read_from_the_canonical_envelope_of_the_size_that_was_asked_for(size: int) -> None:
    marks = Marks(size)
    read = envelope.read(marks.envelope(BOB, MARK), size)
    assert read.recipient == BOB
    assert marks.read(read.canonical) == MARK
    with pytest.raises(EnvelopeTooLarge):
        envelope.read(marks.envelope(BOB, MARK), size - 1)


def test_a_mark_of_another_run_is_foreign() -> None:
    assert Marks(1024).read(Marks(1024).envelope(BOB, MARK)) is Stray.FOREIGN


@pytest.mark.parametrize(
    "other", [b"", b"{}", b"[]", b'{"recipientId":"urn:sm:user:bob"}', b'{"recipientId":"x","encryptedData":"!"}']
)
def test_what_has_no_mark_is_foreign(other: bytes) -> None:
    assert Marks(1024).read(other) is Stray.FOREIGN


@pytest.mark.parametrize("field", ["recipientId", "encryptedData", "encryptedSymmetricKey", "signature"])
def test_a_character_that_changed_is_seen(field: str) -> None:
    marks = Marks(1024)
    document = json.loads(marks.envelope(BOB, MARK))
    text = document[field]
    document[field] = text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]
    assert marks.read(json.dumps(document).encode()) is Stray.ALTERED


def test_a_cut_mark_is_foreign() -> None:
    marks = Marks(1024)
    document = json.loads(marks.envelope(BOB, MARK))
    document["encryptedData"] = document["encryptedData"][:32]
    assert marks.read(json.dumps(document).encode()) is Stray.FOREIGN


def test_contents_are_random() -> None:
    marks = Marks(1024)
    assert marks.envelope(BOB, MARK) != marks.envelope(BOB, MARK)


def test_without_a_rate_the_next_message_is_due_at_once() -> None:
    pace = Pace(messages=3, seconds=2, rate=None)
    assert [pace.due(number, 7) for number in range(4)] == [7, 7, 7, None]
    assert pace.due(1, 2 * NANOSECONDS) is None
    assert pace.offered(2, 2 * NANOSECONDS) == 2


def test_a_rate_heeds_no_answer() -> None:
    pace = Pace(messages=None, seconds=1, rate=4)
    # However late it is, each is due when it was to be.
    assert [pace.due(number, NANOSECONDS - 1) for number in range(5)] == [
        0,
        250_000_000,
        500_000_000,
        750_000_000,
        None,
    ]
    assert pace.offered(1, NANOSECONDS) == 4
    assert pace.offered(1, NANOSECONDS // 2) == 2
    assert pace.offered(1, 9 * NANOSECONDS) == 4
    assert Pace(messages=3, seconds=None, rate=4).offered(1, 9 * NANOSECONDS) == 3


def test_percentiles_are_nearest_ranks() -> None:
    latencies = Latencies()
    for number in range(100, 0, -1):
        latencies.add(number)
    assert latencies.percentiles(50, 90, 99, 100) == [50, 90, 99, 100]
