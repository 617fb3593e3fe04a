"""SecureEnvelope against google's protobuf as oracle, and the two ways of reading against each other."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from router import envelope, urn
from router.errors import InvalidEnvelope
from router.messages import Lane
from tests.support.oracle import MAX, judge, laxer
from tests.support.protojson import (
    BOB,
    JSON_NAMES,
    OPAQUE,
    anything,
    by_oracle,
    compact,
    envelopes,
    few,
    int32s,
    recipients,
    strings,
    texts_without,
    unknown_names,
)


@few(250)
@given(envelopes())
def test_every_spelling_is_read_as_the_oracle_reads_it(case: tuple[dict[str, Any], bytes]) -> None:
    values, body = case
    read = envelope.read(body, MAX)
    expected = by_oracle(body) | {"recipientId": urn.parse(values["recipientId"])}
    assert read.canonical == compact(expected), "the oracle writes by number, without defaults"
    assert by_oracle(read.canonical, strict=True) == expected
    assert envelope.read(read.canonical, MAX) == read
    assert read.recipient == expected["recipientId"]
    assert read.ephemeral is values.get("isEphemeral", False)
    assert read.size == sum(len(values.get(name, b"")) for name in OPAQUE)
    assert read.lane is (Lane.EXPRESS if values.get("priority", 0) >= 5 else Lane.NORMAL)
    for name in OPAQUE:
        assert base64.b64decode(expected.get(name, "")) == values.get(name, b"")


# Where the oracle and the reader part


def judged(body: bytes) -> None:
    assume(not laxer(body))
    judge(body)


odd_numbers = ["7", "-0", "5.0", "1e1", "1E+1", "2147483648", "1e400", "-1e-400", "5.5", "+7", "007", "1_0", "٣"]
odd_words = [
    "",
    " 7",
    "7 ",
    "\t7",
    "7\n",
    ".5",
    "5.",
    "0x10",
    "inf",
    "-Infinity",
    "NaN",
    "nan",
    "null",
    "true",
    "\ud800",
]
odd_strings = st.sampled_from(odd_numbers + odd_words)
odd_base64 = st.text("AQIDw19+/-_= !\t\r\n\u00e9", max_size=9)
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    int32s,
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.integers(-(2**33), 2**33).map(float),
    odd_strings,
    odd_base64,
    recipients,
    st.text(max_size=5),
    st.just([]) | st.lists(int32s, max_size=3),
    st.just({}) | st.dictionaries(st.text(max_size=2), st.integers() | st.floats(), max_size=2),
)
odd_documents = st.dictionaries(st.sampled_from(sorted(JSON_NAMES)) | unknown_names, odd_values, max_size=4)


@few(400)
@given(odd_documents, st.booleans())
def test_odd_values_are_judged_as_the_oracle_judges_them(document: dict[str, Any], addressed: bool) -> None:
    if addressed:
        document = {**document, "recipientId": BOB}
    judged(json.dumps(document).encode())


@few(200)
@given(envelopes(), st.data())
def test_damaged_bodies_are_judged_as_the_oracle_judges_them(case: tuple[Any, bytes], data: st.DataObject) -> None:
    body = bytearray(case[1])
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = start + data.draw(st.integers(0, 2))
        body[start:end] = data.draw(
            st.sampled_from(list(b'"{}[]:,\\=-_+/019eE.AZ \n\xc3\xff\0')).map(lambda b: bytes([b]))
        )
    judged(bytes(body))


@few(200)
@given(st.binary(max_size=40) | anything.map(lambda value: json.dumps(value).encode()))
@example(b'""')
@example(b"[]")
@example(b'["recipientId"]')
def test_any_other_body_is_judged_as_the_oracle_judges_it(body: bytes) -> None:
    judged(body)


# The fast path


plain = st.fixed_dictionaries(
    {"recipientId": texts_without(':\\"')},
    optional={
        **{name: st.binary(min_size=1, max_size=9).map(lambda b: base64.b64encode(b).decode()) for name in OPAQUE},
        "isEphemeral": st.booleans(),
        "priority": int32s,
    },
)


@few(300)
@given(plain, st.sampled_from([None, 0, 2]), st.booleans())
def test_the_usual_body_takes_the_fast_path_to_the_same_fields(
    values: dict[str, Any], indent: int | None, escaped: bool
) -> None:
    body = json.dumps(values, ensure_ascii=escaped, indent=indent).encode()
    usual = envelope._read_usual(body)
    assert usual is not None
    assert usual == envelope._read_fully(body)


@few(150)
@given(envelopes(), st.data())
def test_both_ways_agree_where_both_accept(case: tuple[Any, bytes], data: st.DataObject) -> None:
    body = case[1]
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(body)))
        body = body[:cut] + body[cut + 1 :]
    if (usual := envelope._read_usual(body)) is not None:
        assert usual == envelope._read_fully(body)


@few(150)
@given(plain, st.data())
def test_a_member_given_twice_is_refused_whatever_else_is_there(values: dict[str, Any], data: st.DataObject) -> None:
    members = list(values.items())
    again = data.draw(st.sampled_from(members))
    members.insert(data.draw(st.integers(0, len(members))), (again[0], data.draw(st.sampled_from([again[1], None]))))
    texts = [f"{data.draw(strings(name))}:{json.dumps(value)}" for name, value in members]
    with pytest.raises(InvalidEnvelope):
        envelope.read(f"{{{','.join(texts)}}}".encode(), MAX)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"recipientId":"\u0022bob","priority":1,"priority":2}',
        rb'{"recipientId":"bob\u0022\u0022","signature":"AQID","signature":"AQID"}',
        b'{"recipientId":"bob","isEphemeral":false,"isEphemeral":true}',
        b'{"recipientId":"isEphemeral","priority":1,"priority":2}',
        b'{"recipientId":"bob","priority":null,"priority":2}',
        b'{"recipientId":"bob","signature":"","signature":""}',
        rb'{"recipientId":"eve","recipient\u0049d":"bob"}',
    ],
)
def test_escapes_and_defaults_hide_no_second_member(body: bytes) -> None:
    with pytest.raises(InvalidEnvelope, match="two members with the same name"):
        envelope.read(body, MAX)
