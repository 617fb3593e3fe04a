"""Envelopes as a program holds them: what is sent is what the router reads, and comes back as bytes."""

from __future__ import annotations

import msgspec
import pytest

from router import envelope
from router.client import Envelope, InvalidEnvelope, Received

FULL = Envelope(
    "bob",
    encrypted_data=bytes(range(256)),
    encrypted_symmetric_key=b"\0",
    signature=b"s",
    is_ephemeral=True,
    priority=0,
)


@pytest.mark.parametrize("sent", [FULL, Envelope("bob"), Envelope("urn:sm:device:9", b"x", priority=-5)])
def test_the_router_reads_what_is_sent_and_it_comes_back(sent: Envelope) -> None:
    canonical = envelope.read(sent.to_json(), 1000).canonical
    received = Received("id", msgspec.Raw(canonical))
    assert received.raw == canonical
    recipient = "urn:sm:user:bob" if sent.recipient_id == "bob" else sent.recipient_id
    assert received.decoded == msgspec.structs.replace(sent, recipient_id=recipient)
    assert received.decoded.to_json() == canonical


def test_fields_of_later_versions_are_left_out() -> None:
    assert Envelope.from_json(b'{"recipientId": "bob", "colour": {"of": "hats"}}') == Envelope("bob")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"recipientId": "bob", "signature": "c2VjcmV0*"}', b'{"recipientId": "\xff"}'],
)
def test_what_is_no_envelope_is_an_error_that_does_not_quote_it(content: bytes) -> None:
    with pytest.raises(InvalidEnvelope) as raised:
        Envelope.from_json(content)
    assert raised.value.__cause__ is None
    assert "c2VjcmV0" not in str(raised.value)
