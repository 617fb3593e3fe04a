"""URNs and ids."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import ids, urn
from router.errors import InvalidIdempotencyKey, InvalidUrn


@given(st.text(max_size=300))
def test_a_urn_is_canonical_or_refused(text: str) -> None:
    try:
        parsed = urn.parse(text)
    except InvalidUrn:
        return
    assert urn.parse(parsed) == parsed
    assert parsed.count(":") == 3
    assert all(parsed.split(":"))
    assert len(parsed.encode()) <= urn.MAX_BYTES
    assert not any(character.isspace() or ord(character) < 32 or ord(character) == 127 for character in parsed)


@pytest.mark.parametrize(
    "text", ["urn:sm:user:{bob}", "urn:sm:user:a/b", "urn:sm:user:__x__", "urn:lookup:email:z@ü.de"]
)
def test_names_that_trouble_stores_are_names(text: str) -> None:
    """RACES 39."""
    assert urn.parse(text) == text


@pytest.mark.parametrize(
    "text", ["bo\u2028b", "bo\u00a0b", "bo\x7fb", "bo\x85b", "", "\ud800", "b" * 10_000, "urn:a:b"]
)
def test_names_that_are_none(text: str) -> None:
    """RACES 39."""
    with pytest.raises(InvalidUrn):
        urn.parse(text)


@given(st.integers(0, 2**48 * 1000 - 1), st.binary(min_size=10, max_size=10))
def test_new_ids_are_uuid7(now: int, entropy: bytes) -> None:
    parsed = uuid.UUID(ids.new_id(now, entropy))
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == now // 1000


def test_keyed_ids_depend_on_secret_sender_and_key() -> None:
    given_ids = {
        ids.keyed_id(secret, sender, key)
        for secret in (b"1", b"2")
        for sender, key in (("ab", "c"), ("a", "bc"), ("a", "b"))
    }
    assert len(given_ids) == 6
    assert ids.keyed_id(b"1", "a", "b") == ids.keyed_id(b"1", "a", "b")
    assert uuid.UUID(ids.keyed_id(b"1", "a", "b")).version == 8


def test_keys_quoted_or_bare_are_the_same() -> None:
    assert ids.parse_key('"abc"') == ids.parse_key(" abc ") == "abc"
    for bad in ("", '""', "a b", "ä", "x" * 256):
        with pytest.raises(InvalidIdempotencyKey):
            ids.parse_key(bad)
