"""SecureEnvelope: the ProtoJSON form of a proto3 message, read once, then carried as canonical bytes.

Reading follows https://protobuf.dev/programming-guides/json/ and is stricter where the spec (section 3) says so.
The usual body takes a fast path through msgspec; whatever that refuses, the full reader judges.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from router import urn
from router.errors import EnvelopeTooLarge, InvalidEnvelope, InvalidUrn
from router.messages import EXPRESS_PRIORITY, Lane

_INT32 = range(-(2**31), 2**31)
_NAMES = {
    "recipient_id": "recipientId",
    "encrypted_data": "encryptedData",
    "encrypted_symmetric_key": "encryptedSymmetricKey",
    "is_ephemeral": "isEphemeral",
}
"""proto name to JSON name, where they differ."""


class _Wire(Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The fields by number; encoding it gives the canonical form."""

    recipient_id: str
    encrypted_data: bytes = b""
    encrypted_symmetric_key: bytes = b""
    signature: bytes = b""
    is_ephemeral: bool = False
    priority: int | None = None


class Envelope(Struct, frozen=True, gc=False):
    """What the router needs to know of an envelope, and its bytes."""

    recipient: str
    """Canonical URN."""
    canonical: bytes
    """Canonical ProtoJSON."""
    lane: Lane
    ephemeral: bool
    size: int
    """Decoded bytes of the three opaque fields."""


_decoder = msgspec.json.Decoder(_Wire)
_encoder = msgspec.json.Encoder()


def read(body: bytes, max_bytes: int) -> Envelope:
    """The envelope in ``body``.

    Raises ``InvalidEnvelope``; ``EnvelopeTooLarge`` where the opaque fields hold more than ``max_bytes``.
    """
    try:
        wire = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        wire = _read_fully(body)
    if wire.priority is not None and wire.priority not in _INT32:
        raise InvalidEnvelope('"priority" is out of the range of an int32')
    size = len(wire.encrypted_data) + len(wire.encrypted_symmetric_key) + len(wire.signature)
    if size > max_bytes:
        raise EnvelopeTooLarge(f"the opaque fields hold {size} bytes, the limit is {max_bytes}")
    try:
        wire.recipient_id = urn.parse(wire.recipient_id)
    except InvalidUrn as error:
        raise InvalidUrn(f'"recipientId" is no valid URN: {error}') from error
    express = wire.priority is not None and wire.priority >= EXPRESS_PRIORITY
    lane = Lane.EXPRESS if express else Lane.NORMAL
    return Envelope(wire.recipient_id, _encoder.encode(wire), lane, wire.is_ephemeral, size)


def message_list(messages: Iterable[tuple[str, bytes]]) -> bytes:
    """``QueuedMessageList`` of (id, canonical envelope) pairs; the envelopes go out as the bytes they are."""
    parts = [b'{"id":%b,"envelope":%b}' % (_encoder.encode(id_), canonical) for id_, canonical in messages]
    return b'{"messages":[%b]}' % b",".join(parts)


def push_command(recipient: str, canonical: bytes) -> bytes:
    """The notification command for one message (spec, section 2)."""
    return b'{"recipientId":%b,"envelope":%b}' % (_encoder.encode(recipient), canonical)


def _read_fully(body: bytes) -> _Wire:
    fields = _fields(body)
    recipient = fields.get("recipientId")
    if recipient is None:
        raise InvalidEnvelope('"recipientId" is missing; name the recipient as "urn:<namespace>:<type>:<id>"')
    return _Wire(
        recipient_id=_string("recipientId", recipient),
        encrypted_data=_bytes("encryptedData", fields.get("encryptedData")),
        encrypted_symmetric_key=_bytes("encryptedSymmetricKey", fields.get("encryptedSymmetricKey")),
        signature=_bytes("signature", fields.get("signature")),
        is_ephemeral=_bool("isEphemeral", fields.get("isEphemeral")),
        priority=_int("priority", fields.get("priority")),
    )


def _fields(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise InvalidEnvelope("the body is not UTF-8") from error
    except RecursionError as error:
        raise InvalidEnvelope("the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidEnvelope(f"the body is not JSON: {_brief(error)}") from error
    if not isinstance(document, dict):
        raise InvalidEnvelope("the body must be one JSON object")
    fields: dict[str, Any] = {}
    for name, value in document.items():
        known = _NAMES.get(name, name)
        if known in fields:
            raise InvalidEnvelope(f'"{known}" is given twice, under both of its names')
        if known in _KNOWN:
            fields[known] = value
    return fields


_KNOWN = {field.encode_name for field in msgspec.structs.fields(_Wire)}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _brief(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return str(error)[:80]


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidEnvelope(f'"{name}" must be a string')
    return value


def _bytes(name: str, value: Any) -> bytes:
    if value is None:
        return b""
    text = _string(name, value).translate(_STANDARD)
    padded = text.rstrip("=")
    try:
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEnvelope(f'"{name}" is not base64') from error


_STANDARD = str.maketrans("-_", "+/")


def _bool(name: str, value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise InvalidEnvelope(f'"{name}" must be true or false')
    return value


def _int(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidEnvelope(f'"{name}" is no number') from error
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidEnvelope(f'"{name}" must be an integer')
    if value not in _INT32:
        raise InvalidEnvelope(f'"{name}" is out of the range of an int32')
    return value
