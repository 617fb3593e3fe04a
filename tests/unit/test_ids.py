"""Message ids and the keys that some of them come from."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import ids
from router.errors import InvalidIdempotencyKey

few = settings(deadline=None, max_examples=200)
entropies = st.binary(min_size=10, max_size=10)
moments = st.integers(0, 2**48 * 1000 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)

SECRET = b"0123456789abcdef"


def test_the_example_of_the_rfc() -> None:
    """RFC 9562, appendix A.6."""
    id_ = ids.new_id(0x017F22E279B0 * 1000, bytes.fromhex("0cc318c4dc0c0c07398f"))
    assert id_ == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@few
@given(moments, entropies)
def test_a_new_id_is_a_version_7_uuid_of_its_millisecond(now: int, entropy: bytes) -> None:
    id_ = UUID(ids.new_id(now, entropy))
    assert str(id_) == ids.new_id(now, entropy)
    assert (id_.version, id_.variant) == (7, RFC_4122)
    assert id_.int >> 80 == now // 1000


@few
@given(moments, moments, entropies, entropies)
def test_ids_rise_with_the_millisecond(one: int, other: int, entropy: bytes, more: bytes) -> None:
    if one // 1000 < other // 1000:
        assert ids.new_id(one, entropy) < ids.new_id(other, more)


@few
@given(moments, st.integers(0, 79))
def test_all_random_bits_but_those_of_version_and_variant_count(now: int, bit: int) -> None:
    entropy = (1 << bit).to_bytes(10, "big")
    fixed = bit in {62, 63, 76, 77, 78, 79}
    assert (ids.new_id(now, entropy) == ids.new_id(now, bytes(10))) is fixed


@pytest.mark.parametrize("length", [0, 9, 11])
def test_too_little_or_too_much_randomness_is_a_mistake(length: int) -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        ids.new_id(0, bytes(length))


@given(st.integers(0, 2**48 * 1000 - 1), st.binary(min_size=10, max_size=10))
def test_a_new_id_tells_when_its_message_was_accepted_to_the_millisecond(now: int, entropy: bytes) -> None:
    assert ids.accepted_at(ids.new_id(now, entropy)) == now // 1000 * 1000


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdef-7", min_size=36, max_size=36)))
def test_what_a_client_makes_up_tells_a_time_or_none(text: str) -> None:
    at = ids.accepted_at(text)
    assert at is None or 0 <= at < 2**48 * 1000
    assert ids.accepted_at(ids.keyed_id(b"secret", "alice", "bob", text)) is None
    assert ids.accepted_at(ids.foreign_id("topic", text)) is None


def test_keyed_ids_stay_the_same_across_releases() -> None:
    """A change here would accept every retry under way a second time."""
    id_ = ids.keyed_id(SECRET, "urn:sm:user:alice", "urn:sm:user:bob", "abc")
    assert id_ == "3bd7a5b7-bd5d-8928-b0e6-03f238549f98"


@few
@given(st.binary(), texts, texts, texts)
def test_a_keyed_id_is_a_version_8_uuid_and_always_the_same(
    secret: bytes, sender: str, recipient: str, key: str
) -> None:
    id_ = UUID(ids.keyed_id(secret, sender, recipient, key))
    assert (id_.version, id_.variant) == (8, RFC_4122)
    assert str(id_) == ids.keyed_id(secret, sender, recipient, key)


@few
@given(st.lists(st.tuples(texts, texts, texts), unique=True))
def test_another_sender_recipient_or_key_gives_another_id(names: list[tuple[str, str, str]]) -> None:
    assert len({ids.keyed_id(SECRET, *name) for name in names}) == len(names)


@few
@given(texts, st.data())
def test_sender_recipient_and_key_do_not_run_into_each_other(text: str, data: st.DataObject) -> None:
    one, other = (sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text))))) for _ in "12")
    first, second = (ids.keyed_id(SECRET, text[:a], text[a:b], text[b:]) for a, b in (one, other))
    assert (first == second) is (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c", "d"), ("a", "bc", "d")),
        (("a", "bc", "d"), ("a", "b", "cd")),
        (("a\0b", "c", "d"), ("a", "b\0c", "d")),
        (("", "a", "b"), ("a", "", "b")),
        (("a", "b", "k"), ("b", "a", "k")),
    ],
)
def test_names_that_spell_the_same_text_differ(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert ids.keyed_id(SECRET, *one) != ids.keyed_id(SECRET, *other)


def test_another_secret_gives_another_id() -> None:
    assert ids.keyed_id(b"one", "a", "b", "c") != ids.keyed_id(b"other", "a", "b", "c")


@few
@given(visible.filter(lambda key: not key.startswith('"')))
def test_a_key_is_the_same_bare_and_quoted(key: str) -> None:
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    assert ids.parse_key(key) == ids.parse_key(f'"{escaped}"') == key


@pytest.mark.parametrize("header", [" abc", "abc\t", ' "abc" '])
def test_white_space_around_a_header_is_not_of_the_key(header: str) -> None:
    assert ids.parse_key(header) == "abc"


def test_a_quoted_key_may_begin_with_a_quote() -> None:
    assert ids.parse_key(r'"\"abc"') == '"abc'


@pytest.mark.parametrize("length", [1, 255])
def test_the_length_does_not_count_quotes_and_escapes(length: int) -> None:
    assert ids.parse_key("k" * length) == ids.parse_key(f'"{"k" * length}"') == "k" * length
    assert ids.parse_key('"' + '\\"' * length + '"') == '"' * length


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        '"',
        '""',
        '"""',
        '"abc',
        '"abc"def"',
        '"abc";a=1',
        '"a\\bc"',
        '"abc\\"',
        "a b",
        '"a b"',
        "abc, def",
        "a\x00b",
        "a\nb",
        "a\x7f",
        "zoë",
        '"zoë"',
        "\xa0abc",
        "k" * 256,
        '"' + "k" * 256 + '"',
    ],
)
def test_what_cannot_be_a_key_is_refused_and_not_repeated(header: str) -> None:
    with pytest.raises(InvalidIdempotencyKey, match=r"^the Idempotency-Key ") as refused:
        ids.parse_key(header)
    assert len(str(refused.value)) < 120


def test_entropy_is_never_given_out_twice() -> None:
    entropy = ids.Entropy(ahead=32)
    given = [entropy(10) for _ in range(100)]
    assert {len(octets) for octets in given} == {10}
    assert len(set(given)) == len(given)
    assert len(entropy(100)) == 100
