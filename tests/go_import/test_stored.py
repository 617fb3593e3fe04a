"""What go-routing-service stored: in which order it is imported, and what cannot be."""

from __future__ import annotations

import math

import pytest

from router.backends.firestore.wire import new_write
from router.go_import.stored import Unreadable, Waiting, body, entry, in_order, message
from router.messages import Lane

BOB = "urn:sm:user:bob"
ENVELOPE = b'{"recipientId":"urn:sm:user:bob","encryptedData":"c2VhbGVk"}'


def waiting(id_: str, at: float = math.inf, place: str = "p") -> Waiting:
    return Waiting(id_, place, at)


def ids(*places: list[Waiting]) -> list[str]:
    return [each.id for each in in_order(places)]


def test_what_was_queued_first_comes_first_wherever_it_is() -> None:
    assert ids([waiting("hot 2", 2), waiting("hot 5", 5)], [waiting("cold 1", 1), waiting("cold 3", 3)]) == [
        "cold 1", "hot 2", "cold 3", "hot 5",
    ]  # fmt: skip


def test_lists_without_times_come_last_in_the_order_of_their_entries() -> None:
    """Versions before the express lane wrote none; hot mail is newer than cold."""
    cold, pending, queue = [waiting("c", 9)], [waiting("p1"), waiting("p2")], [waiting("q1"), waiting("q2")]
    assert ids(cold, pending, queue) == ["c", "p1", "p2", "q1", "q2"]


def test_an_entry_without_a_time_stands_before_the_next_one_that_has_one() -> None:
    assert ids([waiting("old"), waiting("new", 4), waiting("last")], [waiting("cold", 3), waiting("later", 5)]) == [
        "cold", "old", "new", "later", "last",
    ]  # fmt: skip


def test_each_id_comes_once_at_its_oldest_place() -> None:
    """A migration that broke off left a copy in cold, with a later time."""
    found = in_order([[waiting("a", 7, "cold"), waiting("b", 5, "cold")], [waiting("a", 2, "hot")]])
    assert [(each.id, each.place) for each in found] == [("a", "hot"), ("b", "cold")]


def test_an_entry_of_redis_is_read() -> None:
    value = b'{"id":"m","envelope":%b,"queued_at":"2025-12-01T10:00:00.123456789Z"}' % ENVELOPE
    assert entry("queue:x", value) == Waiting("m", "queue:x", 1_764_583_200_123_456, ENVELOPE)
    assert entry("queue:x", b'{"id":"m","envelope":%b}' % ENVELOPE).queued_at == math.inf


@pytest.mark.parametrize(
    "value",
    [b"", b"\xff", b"[]", b'{"id":1,"envelope":{}}', b'{"id":"m"}', b'{"id":"m","envelope":{},"queued_at":"noon"}',
     b'{"id":"m","envelope":{},"queued_at":"2025-12-01T10:00:00"}'],
)  # fmt: skip
def test_what_is_no_entry_is_said_without_its_content(value: bytes) -> None:
    with pytest.raises(Unreadable, match="not JSON with an id and an envelope"):
        entry("queue:x", value)


@pytest.mark.parametrize("spelling", ["EncryptedData", "encryptedData", "encrypted_data"])
def test_a_document_is_read_in_any_spelling(spelling: str) -> None:
    fields = new_write().update.fields
    own = fields["envelope"].map_value.fields
    own["RecipientId"].string_value = BOB
    own[spelling].bytes_value = b"sealed"
    own["Signature"].null_value = 0
    own["Priority"].integer_value = 7
    own["Else"].string_value = "ignored"
    read = message(BOB, waiting("m"), body(fields), 5, 100)
    assert (read.id, read.recipient, read.lane, read.ephemeral, read.accepted_at) == ("m", BOB, Lane.EXPRESS, False, 5)
    assert read.envelope == ENVELOPE[:-1] + b',"priority":7}'
    assert read.checksum is not None


def test_a_document_without_an_envelope_is_none() -> None:
    fields = new_write().update.fields
    with pytest.raises(Unreadable, match="no map"):
        body(fields)
    fields["envelope"].string_value = "x"
    with pytest.raises(Unreadable, match="no map"):
        body(fields)


@pytest.mark.parametrize(
    ("id_", "user", "found", "why"),
    [
        ("a/b", BOB, ENVELOPE, "its id"),
        ("", BOB, ENVELOPE, "its id"),
        ("m", "urn:sm:user:eve", ENVELOPE, "for another recipient"),
        ("m", BOB, b'{"recipientId":"urn:sm:user:bob","encryptedData":"c2VhbGVkIGFuZCBsb25n"}', "maximum is 10"),
        ("m", BOB, b"{}", "recipientId"),
        ("m", "a:b", b'{"recipientId":"urn:sm:user:bob"}', "URN"),
    ],
)
def test_what_cannot_be_delivered_is_said(id_: str, user: str, found: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why) as caught:
        message(user, waiting(id_), found, 1, 10)
    assert "c2Vh" not in str(caught.value)


def test_a_bare_id_is_its_urn() -> None:
    assert message("bob", waiting("m"), ENVELOPE, 1, 10).recipient == BOB
