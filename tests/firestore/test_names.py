"""Names of documents: whatever users and ids are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.firestore import names

ODD = [
    "",
    ".",
    "..",
    "...",
    "/",
    "__x__",
    "__",
    "_",
    "%",
    "%2F",
    "%%",
    "a/b",
    "{}",
    "é/\x00",
    "urn:sm:user:{eve}/__x__",
]
texts = st.text(st.sampled_from("./%_a\x00é"), max_size=6) | st.text(max_size=40)
times = st.integers(0, 1 << 55)


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_possible(name: str) -> None:
    """RACES 39."""
    check(name)


@given(texts)
def test_any_name_is_escaped_reversibly(name: str) -> None:
    check(name)


def check(name: str) -> None:
    document = names.document_id(name)
    assert document
    assert "/" not in document
    assert document not in (".", "..")
    assert not document.startswith("__")
    assert names.name_of(document) == name
    for document in (names.record_id("urn:sm:user:bob", name), names.earlier_record_id(name)):
        assert names.recorded(document) == name
    assert names.possible(name)


def test_what_no_document_can_be_called_is_impossible() -> None:
    longest = "x" * 1460
    assert names.possible(longest)
    assert len(names.record_id("urn:sm:user:bob", longest)) <= 1500
    assert not names.possible(f"{longest}x")
    assert not names.possible("/" * 500)
    assert not names.possible("\ud800")


@given(st.tuples(st.integers(0, 1), times), st.tuples(st.integers(0, 1), times))
def test_places_keep_their_order(first: tuple[int, int], second: tuple[int, int]) -> None:
    numbers = names.place_number(*first), names.place_number(*second)
    assert (first < second) == (numbers[0] < numbers[1])
    assert names.place_of(numbers[0]) == first
    assert numbers[0] < 1 << 63, "a Firestore integer"


@given(st.text(max_size=9), times, times)
def test_times_keep_their_order_within_a_shard(user: str, first: int, second: int) -> None:
    numbers = names.sharded(user, first), names.sharded(user, second)
    assert (first < second) == (numbers[0] < numbers[1])
    assert names.time_of(numbers[0]) == first
    shards = [number >> 56 for number in numbers]
    assert shards[0] == shards[1] < names.SHARDS
