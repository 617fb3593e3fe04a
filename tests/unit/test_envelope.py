"""SecureEnvelope against the shared vectors, and against google's protobuf as oracle."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message as ProtoMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from router import envelope
from router.errors import EnvelopeTooLarge, InvalidEnvelope
from router.messages import Lane

VECTORS = json.loads((Path(__file__).parents[3] / "shared/vectors/envelopes.json").read_text())
MAX = 1 << 20
_FIELDS = (
    ("recipient_id", "TYPE_STRING"),
    ("encrypted_data", "TYPE_BYTES"),
    ("encrypted_symmetric_key", "TYPE_BYTES"),
    ("signature", "TYPE_BYTES"),
    ("is_ephemeral", "TYPE_BOOL"),
    ("priority", "TYPE_INT32"),
)


def _oracle() -> type[ProtoMessage]:
    file = descriptor_pb2.FileDescriptorProto(name="envelope.proto", syntax="proto3")
    message = file.message_type.add(name="SecureEnvelope")
    message.oneof_decl.add(name="_priority")
    for number, (name, kind) in enumerate(_FIELDS, 1):
        field = message.field.add(name=name, number=number, label="LABEL_OPTIONAL", type=kind)
        if name == "priority":
            field.proto3_optional = True
            field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[ProtoMessage] = message_factory.GetMessageClass(pool.FindMessageTypeByName("SecureEnvelope"))
    return found


ORACLE = _oracle()


def by_oracle(body: bytes) -> dict[str, Any]:
    parsed = json_format.Parse(body, ORACLE(), ignore_unknown_fields=True)
    return dict(json_format.MessageToDict(parsed))


@pytest.mark.parametrize("case", VECTORS["accepted"], ids=lambda case: case["name"])
def test_accepted(case: dict[str, Any]) -> None:
    read = envelope.read(case["input"].encode(), MAX)
    compact = json.dumps(case["canonical"], separators=(",", ":"), ensure_ascii=False)
    assert read.canonical == compact.encode()
    assert envelope.read(read.canonical, MAX) == read, "what is canonical stays as it is"
    assert read.recipient == case["canonical"]["recipientId"]
    assert read.lane is (Lane.EXPRESS if case["canonical"].get("priority", 0) >= 5 else Lane.NORMAL)
    assert read.ephemeral is case["canonical"].get("isEphemeral", False)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_refused(case: dict[str, Any]) -> None:
    body = base64.b64decode(case["input_base64"]) if "input_base64" in case else case["input"].encode()
    with pytest.raises(InvalidEnvelope) as refusal:
        envelope.read(body, MAX)
    assert str(refusal.value), "a refusal says what was wrong"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200_000,
        b'{"recipientId":"bob","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"recipientId":"bob","priority":' + b"9" * 10_000 + b"}",
        b'{"recipientId":"bob","priority":"' + b"9" * 10_000 + b'"}',
        b'{"recipientId":"bob","priority":1e400}',
        b'{"recipientId":"bob","priority":"NaN"}',
        b'\xef\xbb\xbf{"recipientId":"bob"}',
        b'{"recipientId":"bob","recipient_id":"eve"}',
        b'{"recipientId":"urn:sm:user:' + b"x" * 10_000 + b'"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_hostile_bodies_are_refused_not_crashed_on(body: bytes) -> None:
    """RACES 37, 39."""
    with pytest.raises(InvalidEnvelope):
        envelope.read(body, MAX)


def test_the_limit_counts_decoded_bytes() -> None:
    body = json.dumps({"recipientId": "bob", "encryptedData": base64.b64encode(b"x" * 300).decode()}).encode()
    assert envelope.read(body, 300).size == 300
    with pytest.raises(EnvelopeTooLarge):
        envelope.read(body, 299)


NAMES = st.sampled_from(["camel", "snake"])
OPAQUE = st.binary(max_size=40)


def _spelled(data: bytes, *, urlsafe: bool, padded: bool) -> str:
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()
    return text if padded else text.rstrip("=")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An envelope in one of its many spellings."""
    document: dict[str, Any] = {}
    for name, kind in _FIELDS:
        spelled = name if draw(NAMES) == "snake" else "".join(
            part.capitalize() if index else part for index, part in enumerate(name.split("_"))
        )  # fmt: skip
        if name == "recipient_id":
            document[spelled] = "urn:sm:user:" + draw(st.text("abcäß漢-._", min_size=1, max_size=8))
        elif draw(st.booleans()):
            document[spelled] = draw(_value(kind))
    if draw(st.booleans()):
        document["unknown"] = draw(st.recursive(st.none() | st.integers(), lambda inner: st.lists(inner, max_size=2)))
    return json.dumps(document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode()


def _value(kind: str) -> st.SearchStrategy[Any]:
    if kind == "TYPE_BYTES":
        return st.none() | st.builds(_spelled, OPAQUE, urlsafe=st.booleans(), padded=st.booleans())
    if kind == "TYPE_BOOL":
        return st.none() | st.booleans()
    numbers = st.integers(-(2**31), 2**31 - 1)
    return st.none() | numbers | numbers.map(str) | numbers.map(float)


@settings(deadline=None, max_examples=400)
@given(bodies())
def test_the_oracle_reads_the_same(body: bytes) -> None:
    read = envelope.read(body, MAX)
    assert json.loads(read.canonical) == by_oracle(body)
    assert envelope.read(read.canonical, MAX).canonical == read.canonical


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from([name for name, _ in _FIELDS]), st.none() | st.booleans() | st.integers()
    | st.floats() | st.text("AQID=-_ +/1", max_size=6) | st.just([])))  # fmt: skip
def test_what_the_oracle_refuses_is_refused(document: dict[str, Any]) -> None:
    body = json.dumps({**document, "recipientId": "urn:sm:user:bob"} if "recipient_id" not in document else document)
    try:
        by_oracle(body.encode())
    except json_format.ParseError:
        with pytest.raises(InvalidEnvelope):
            envelope.read(body.encode(), MAX)


def test_a_strict_reader_accepts_a_batch() -> None:
    batch = [("id-1", envelope.read(case["input"].encode(), MAX).canonical) for case in VECTORS["accepted"]]
    document = json.loads(envelope.message_list(batch))
    assert set(document) == {"messages"}
    for message in document["messages"]:
        assert set(message) == {"id", "envelope"}
        json_format.Parse(json.dumps(message["envelope"]), ORACLE(), ignore_unknown_fields=False)
    assert envelope.message_list([]) == b'{"messages":[]}'
