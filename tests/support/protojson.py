"""ProtoJSON for tests: google's protobuf as oracle, and envelopes in every spelling that the format allows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message as ProtoMessage
from hypothesis import settings
from hypothesis import strategies as st

ENVELOPES = Path(__file__).parents[1] / "vectors" / "envelopes.json"
"""Cases of the reading rules: what is accepted, with its canonical form, and what is refused."""
BOB = "urn:sm:user:bob"
OPAQUE = ["encryptedData", "encryptedSymmetricKey", "signature"]
PROTO_NAMES = {
    "recipientId": "recipient_id",
    "encryptedData": "encrypted_data",
    "encryptedSymmetricKey": "encrypted_symmetric_key",
    "signature": "signature",
    "isEphemeral": "is_ephemeral",
    "priority": "priority",
}
JSON_NAMES = {proto: name for name, proto in PROTO_NAMES.items()} | {name: name for name in PROTO_NAMES}


def few(examples: int) -> settings:
    return settings(deadline=None, max_examples=examples)


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="wire.proto", syntax="proto3")
    kinds = ("STRING", "BYTES", "BYTES", "BYTES", "BOOL", "INT32")
    _message(file, "SecureEnvelope", dict(zip(PROTO_NAMES.values(), kinds, strict=True)))
    _message(file, "QueuedMessage", {"id": "STRING", "envelope": "SecureEnvelope"})
    _message(file, "QueuedMessageList", {"messages": "QueuedMessage"})
    _message(file, "PushCommand", {"recipient_id": "STRING", "envelope": "SecureEnvelope"})
    file.message_type[0].oneof_decl.add(name="_priority")
    file.message_type[0].field[5].MergeFrom(descriptor_pb2.FieldDescriptorProto(proto3_optional=True, oneof_index=0))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _message(file: descriptor_pb2.FileDescriptorProto, message: str, fields: dict[str, str]) -> None:
    added = file.message_type.add(name=message)
    for number, (name, kind) in enumerate(fields.items(), 1):
        label = "LABEL_REPEATED" if name == "messages" else "LABEL_OPTIONAL"
        if kind.isupper() or kind == "INT32":
            added.field.add(name=name, number=number, label=label, type=f"TYPE_{kind}")
        else:
            added.field.add(name=name, number=number, label=label, type="TYPE_MESSAGE", type_name=kind)


POOL = _pool()


def by_oracle(body: bytes, message: str = "SecureEnvelope", *, strict: bool = False) -> dict[str, Any]:
    """What protobuf makes of ``body``, written canonically; raises ``ValueError`` where it refuses."""
    new = message_factory.GetMessageClass(POOL.FindMessageTypeByName(message))
    try:
        parsed: ProtoMessage = json_format.Parse(body, new(), ignore_unknown_fields=not strict)
    except json_format.ParseError as error:
        raise ValueError from error
    return dict(json_format.MessageToDict(parsed))


def compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def texts_without(hostile: str) -> st.SearchStrategy[str]:
    """Parts of URNs without the characters of ``hostile``."""
    allowed = st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters=hostile)
    return st.text(allowed, min_size=1, max_size=8)


parts = texts_without(":")
recipients = st.one_of(st.just(BOB), parts, st.builds("urn:{}:{}:{}".format, parts, parts, parts))
int32s = st.one_of(st.integers(-10, 10), st.integers(-(2**31), 2**31 - 1))
blanks = st.text(" \t\r\n", max_size=2)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
# Protobuf takes a name in brackets for an extension, which it refuses; here it is an unknown field.
unknown_names = st.text(max_size=8).filter(lambda name: name not in JSON_NAMES and not name.startswith("["))

fields = st.fixed_dictionaries(
    {"recipientId": recipients},
    optional={
        **{name: st.binary(max_size=20) for name in OPAQUE},
        "isEphemeral": st.booleans(),
        "priority": int32s,
    },
)


@st.composite
def base64_texts(draw: st.DrawFn, data: bytes) -> str:
    """Either alphabet or both, padded or not, with whatever is in the bits that the last character has too many."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    bare = base64.b64encode(data).decode().rstrip("=")
    if spare := len(bare) % 4 and 2 ** (8 - 2 * (len(bare) % 4)):
        bare = bare[:-1] + alphabet[alphabet.index(bare[-1]) + draw(st.integers(0, spare - 1))]
    spelled = "".join(draw(st.sampled_from({"+": "+-", "/": "/_"}.get(c, c))) for c in bare)
    return spelled + draw(st.sampled_from(["", "=" * (-len(bare) % 4)]))


@st.composite
def numbers(draw: st.DrawFn, value: int) -> str:
    exact = [str(value), f"{value}.0", f"{value}.000", f"{value}e0", f"{value}.0E-0", f"{value / 10!r}e+1"]
    text = draw(st.sampled_from([one for one in exact if float(one) == value]))
    return draw(st.sampled_from([text, f'"{text}"']))


@st.composite
def strings(draw: st.DrawFn, text: str) -> str:
    """A JSON string, with some of its characters escaped."""
    escape = draw(st.sampled_from(["never", "ascii", "all"]))
    if escape == "all":
        units = text.encode("utf-16-be", "surrogatepass").hex()
        return '"' + "".join(rf"\u{units[i : i + 4]}" for i in range(0, len(units), 4)) + '"'
    return json.dumps(text, ensure_ascii=escape == "ascii")


@st.composite
def spelled(draw: st.DrawFn, values: dict[str, Any]) -> bytes:
    """``values`` in one of the many spellings that ProtoJSON allows."""
    members: list[tuple[str, str]] = []
    for name, value in values.items():
        key = draw(st.sampled_from([name, PROTO_NAMES[name]]))
        if isinstance(value, bool):
            text = json.dumps(value)
        elif isinstance(value, int):
            text = draw(numbers(value))
        else:
            text = draw(strings(draw(base64_texts(value)) if isinstance(value, bytes) else value))
        members.append((key, text))
    absent = [name for name in PROTO_NAMES if name not in values]
    if absent:
        members += [(name, "null") for name in draw(st.lists(st.sampled_from(absent), unique=True, max_size=2))]
    more = draw(st.dictionaries(unknown_names, anything, max_size=2))
    members += [(name, json.dumps(value)) for name, value in more.items()]
    blank = [draw(blanks) for _ in range(5)]
    texts = [f"{draw(strings(key))}{blank[0]}:{blank[1]}{text}" for key, text in draw(st.permutations(members))]
    inside = f"{blank[2]},{blank[3]}".join(texts)
    return f"{blank[4]}{{{blank[0]}{inside}{blank[1]}}}{blank[2]}".encode()


@st.composite
def envelopes(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    values = draw(fields)
    return values, draw(spelled(values))
