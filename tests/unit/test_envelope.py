"""SecureEnvelope by the cases of the reading rules: what is read, what each refusal says, and what is written."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import envelope
from router.errors import EnvelopeTooLarge, InvalidEnvelope
from router.messages import Lane
from tests.support.protojson import BOB, ENVELOPES, OPAQUE, PROTO_NAMES, by_oracle, compact, few, fields

MAX = 1 << 20
VECTORS = json.loads(ENVELOPES.read_text())


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["name"])
def test_envelope_read_accepts_a_valid_case(case: dict[str, Any]) -> None:
    read = envelope.read(case["input"].encode(), MAX)
    fields = case["canonical"]
    assert read.canonical == compact(fields)
    assert envelope.read(read.canonical, MAX) == read, "what is canonical stays as it is"
    assert read.recipient == fields["recipientId"]
    assert read.lane is (Lane.EXPRESS if fields.get("priority", 0) >= 5 else Lane.NORMAL)
    assert read.ephemeral is fields.get("isEphemeral", False)
    assert read.size == sum(len(base64.b64decode(fields.get(name, ""))) for name in OPAQUE)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_envelope_read_refuses_an_invalid_case(case: dict[str, Any]) -> None:
    body = base64.b64decode(case["input_base64"]) if "input_base64" in case else case["input"].encode()
    with pytest.raises(InvalidEnvelope) as refused:
        envelope.read(body, MAX)
    assert str(refused.value), "a refusal says what was wrong"


def with_fields(text: str) -> bytes:
    return b'{"recipientId":"bob",%b}' % text.encode()


HUGE = 200_000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "line 1, column 1"),
        (b"[" * HUGE, "nested too deeply"),
        (b'{"x":' * HUGE, "nested too deeply"),
        (with_fields('"x":' + "[" * HUGE + "]" * HUGE), "nested too deeply"),
        (with_fields('"priority":' + "9" * 10_000), "too long"),
        (with_fields('"x":-' + "9" * 10_000), "too long"),
        (with_fields(f'"priority":"{"9" * 10_000}"'), '"priority" must be an integer'),
        (with_fields('"priority":"2147483648"'), '"priority" is out of range: .* 2147483647'),
        (with_fields('"priority":1e400'), '"priority" must be an integer'),
        (with_fields('"priority":"NaN"'), '"priority" must be an integer'),
        (with_fields('"x":[-Infinity]'), "-Infinity is not a JSON number"),
        (b'\xef\xbb\xbf{"recipientId":"bob"}', "byte order mark"),
        ('{"recipientId":"bob"}'.encode("utf-16-le"), "not JSON"),
        ('{"recipientId":"bob"}'.encode("utf-16"), "not UTF-8 at byte 1"),
        (b'{"recipientId":"bo\xed\xa0\x80b"}', "not UTF-8 at byte 19"),
        (b'{"recipientId":"bob"', r"not JSON: .*\(line 1, column 21\)"),
        (b'{"recipientId":"bob"}\0', "not JSON"),
        (b"[]", "not an object"),
        (b"{}", '"recipientId" is missing'),
        (b'{"recipientId":"bob","recipient_id":"eve"}', '"recipientId" is given under both of its names'),
        (b'{"recipientId":"bob","recipient_id":null}', '"recipientId" is given under both of its names'),
        (b'{"recipient_id":7}', '"recipient_id" must be a string'),
        (b'{"recipientId":"bob","recipientId":"bob"}', "two members with the same name"),
        (with_fields('"x":{"y":1,"y":2}'), "two members with the same name"),
        (b'{"recipientId":"urn:sm:user:' + b"x" * 10_000 + b'"}', '^"recipientId": .* the maximum is 256'),
        (b'{"recipientId":"urn:sm:bob"}', '^"recipientId": .*3 parts'),
        (with_fields('"signature":"A*=="'), '"signature" is not base64'),
        (with_fields('"encrypted_data":"AQ="'), '"encrypted_data" is not base64'),
        (with_fields('"encrypted_data":[]'), '"encrypted_data" must be a string of base64'),
        (with_fields('"isEphemeral":"true"'), '"isEphemeral" must be true or false'),
    ],
    ids=lambda case: repr(case[:50]),
)
def test_a_refusal_says_what_is_wrong(body: bytes, says: str) -> None:
    """RACES 37, 39."""
    with pytest.raises(InvalidEnvelope, match=says) as refused:
        envelope.read(body, MAX)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("hidden", ["c2VjcmV0", "c2VjcmV0!", "c2VjcmV0\x01", "c2VjcmV0\xff", "c2VjcmV0\ud800"])
@pytest.mark.parametrize("name", [*PROTO_NAMES, "x"])
def test_a_refusal_repeats_nothing_of_the_body(name: str, hidden: str) -> None:
    document = {"recipientId": BOB, name: [hidden], "isEphemeral": hidden, "priority": hidden}
    whole = json.dumps(document, ensure_ascii=False)
    for text in (whole, json.dumps(document), whole[:-1], json.dumps({"recipientId": BOB, name: hidden})[:-1]):
        with pytest.raises(InvalidEnvelope) as refused:
            envelope.read(text.encode("latin-1" if "\xff" in text else "utf-8", "surrogatepass"), MAX)
        shown: BaseException | None = refused.value
        while shown is not None:
            assert "c2Vj" not in repr(shown) + str(shown)
            assert "c2Vj" not in repr(vars(shown))
            shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@pytest.mark.parametrize("line_break", ["\\n", "\\r\\n", "\\r"])
@pytest.mark.parametrize(
    "lines",
    [["QUFB", "QkJC"], ["", "QUFBQkJC", ""], ["Q", "UFBQkJC"], ["QUFBQkJ", "D"], ["QUFBQg=", "="], ["QUFBQg", ""]],
)
def test_base64_may_have_line_breaks(lines: list[str], line_break: str) -> None:
    """As encoders of MIME and PEM write it; it goes out in one line."""
    joined, broken = (with_fields(f'"signature":"{between.join(lines)}"') for between in ("", line_break))
    assert envelope.read(broken, MAX) == envelope.read(joined, MAX)


@pytest.mark.parametrize("gap", [" ", "\\t", "\\u000b", "\\u2028"])
def test_other_space_in_base64_is_refused(gap: str) -> None:
    with pytest.raises(InvalidEnvelope, match="is not base64"):
        envelope.read(with_fields(f'"signature":"QUFB{gap}QkJC"'), MAX)


@pytest.mark.parametrize("spelling", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_limit_counts_the_decoded_bytes_of_all_three_fields(spelling: Any) -> None:
    body = compact({"recipientId": BOB} | {name: spelling(b"\xff" * 100).decode() for name in OPAQUE})
    assert envelope.read(body, 300).size == 300
    with pytest.raises(EnvelopeTooLarge, match="300 bytes together, but the maximum is 299"):
        envelope.read(body, 299)


@pytest.mark.parametrize(("priority", "lane"), [(None, 1), (-1, 1), (0, 1), (4, 1), (5, 0), (2**31 - 1, 0)])
def test_priority_chooses_the_lane(priority: int | None, lane: int) -> None:
    assert envelope.read(compact({"recipientId": BOB, "priority": priority}), MAX).lane == Lane(lane)


# What is written around envelopes


@few(100)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), fields), max_size=5))
def test_a_strict_reader_accepts_a_batch(messages: list[tuple[str, dict[str, Any]]]) -> None:
    batch = [(id_, _read(values).canonical) for id_, values in messages]
    body = envelope.message_list(iter(batch))
    envelope_fields = [{"id": id_, "envelope": json.loads(canonical)} for id_, canonical in batch]
    assert json.loads(body) == {"messages": envelope_fields}
    # Protobuf writes no empty id and no empty list, as these are defaults.
    expected = [{key: value for key, value in one.items() if value != ""} for one in envelope_fields]
    assert by_oracle(body, "QueuedMessageList", strict=True) == ({"messages": expected} if expected else {})


def test_stored_bytes_are_spliced_and_never_encoded_anew() -> None:
    stored = '{ "recipientId":"z\\u006f\u00eb" }'.encode()
    assert envelope.message_list([("a", stored), ('"\n', stored)]) == (
        b'{"messages":[{"id":"a","envelope":%b},{"id":"\\"\\n","envelope":%b}]}' % (stored, stored)
    )
    assert envelope.push_command('urn:sm:user:"z', stored) == (
        b'{"recipientId":"urn:sm:user:\\"z","envelope":%b}' % stored
    )


def test_an_empty_batch_is_an_empty_list() -> None:
    assert envelope.message_list([]) == b'{"messages":[]}'


@few(100)
@given(fields)
def test_a_strict_reader_accepts_a_push_command(values: dict[str, Any]) -> None:
    read = _read(values)
    body = envelope.push_command(read.recipient, read.canonical)
    expected = {"recipientId": read.recipient, "envelope": json.loads(read.canonical)}
    assert by_oracle(body, "PushCommand", strict=True) == json.loads(body) == expected


def _read(values: dict[str, Any]) -> envelope.Envelope:
    return envelope.read(msgspec.json.encode(values), MAX)
