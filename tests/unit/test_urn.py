"""URNs: what is one, what a bare id becomes, and what each refusal says."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import urn
from router.errors import InvalidUrn

EVERY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1)]
REFUSED = {c for c in EVERY_CHARACTER if c.isspace() or unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp", "Zs"}}

few = settings(deadline=None, max_examples=200)
characters = st.characters(exclude_characters=[":", *REFUSED])
parts = st.text(characters, min_size=1, max_size=15)  # 3 x 15 characters of 4 bytes stay below the limit


@few
@given(parts, parts, parts)
def test_urn_parse_keeps_a_urn_of_four_parts(namespace: str, kind: str, name: str) -> None:
    text = f"urn:{namespace}:{kind}:{name}"
    assert urn.parse(text) == text


@few
@given(parts)
def test_a_bare_id_becomes_a_user_once(name: str) -> None:
    canonical = urn.parse(name)
    assert canonical == f"urn:sm:user:{name}"
    assert urn.parse(canonical) == canonical


@few
@given(st.text())
def test_any_text_is_a_urn_or_is_refused(text: str) -> None:
    try:
        canonical = urn.parse(text)
    except InvalidUrn:
        return
    scheme, *rest = canonical.split(":")
    assert scheme == "urn"
    assert len(rest) == 3
    assert all(rest)
    assert not REFUSED & set(canonical)
    assert len(canonical.encode()) <= 256


def test_white_space_controls_and_surrogates_are_refused_in_each_part() -> None:
    """RACES 39."""
    for character in REFUSED:
        for text in (f"b{character}b", f"urn:a{character}:b:c", f"urn:a:{character}:c", f"urn:a:b:c{character}"):
            with pytest.raises(InvalidUrn, match=rf"U\+{ord(character):04X}:"):
                urn.parse(text)


def test_every_other_character_is_allowed() -> None:
    allowed = "".join(c for c in EVERY_CHARACTER if c not in REFUSED and c != ":")
    for start in range(0, len(allowed), 60):
        assert urn.parse(allowed[start : start + 60]).endswith(allowed[start : start + 60])


@pytest.mark.parametrize("text", ["urn:contacts:user:Bob", "urn:contacts:user:bob", "zoe\u0308", "zo\u00eb", "ﬁ", "fi"])
def test_nothing_is_normalized(text: str) -> None:
    assert urn.parse(text).endswith(text)


@pytest.mark.parametrize("text", ["{tag}", "__x__", "a/b", "..", '"', "\\", "%3A", "bob@example.org", "\ufeff"])
def test_characters_that_mean_something_elsewhere_are_plain_here(text: str) -> None:
    """RACES 39."""
    assert urn.parse(text) == f"urn:sm:user:{text}"


@pytest.mark.parametrize("character", ["a", "ä", "漢", "😀"])
def test_the_limit_counts_bytes_of_the_whole_urn(character: str) -> None:
    """RACES 39."""
    fits = character * ((256 - len("urn:sm:user:")) // len(character.encode()))
    assert len(urn.parse(fits).encode()) in range(253, 257)
    with pytest.raises(InvalidUrn, match="the maximum is 256"):
        urn.parse(fits + character)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("urn:a:b", "3 parts instead of four"),
        ("urn:a:b:c:d", "5 parts instead of four"),
        (":", "does not begin"),
        ("url:a:b:c", "does not begin"),
        ("URN:a:b:c", "does not begin"),
        ("urn::b:c", "part 2 of the URN is empty"),
        ("urn:a::c", "part 3 of the URN is empty"),
        ("urn:a:b:", "part 4 of the URN is empty"),
        ("urn:sm:user:", "part 4 of the URN is empty"),
        ("urn:a:b:c\n", r"U\+000A"),
        ("a" * 10_000, "10012 bytes"),
        ("urn:a:b:" + ":" * 10_000_000, "the maximum is 256"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_repeats_nothing(text: str, says: str) -> None:
    with pytest.raises(InvalidUrn, match=says) as refused:
        urn.parse(text)
    assert len(str(refused.value)) < 160
