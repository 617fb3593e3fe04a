"""SecureEnvelope: the ProtoJSON form of a proto3 message, read once, then carried as canonical bytes.

Reading follows https://protobuf.dev/programming-guides/json/, but where docs/specification.md#reading is stricter.
The usual body takes a fast path through msgspec; whatever that does not take, the full reader judges. No
error repeats anything of a body, and none has a foreign error as its cause where that one holds the body.
"""

from __future__ import annotations

import binascii
import codecs
import json
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Struct

from router import urn
from router.errors import EnvelopeTooLarge, InvalidEnvelope, InvalidUrn
from router.messages import EXPRESS_PRIORITY, Lane

_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1
_Int32 = Annotated[int, msgspec.Meta(ge=_INT32_MIN, le=_INT32_MAX)]


class _Wire(Struct, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """The one table of the fields, by number. Encoding it gives the canonical form."""

    recipient_id: str
    encrypted_data: bytes = b""
    encrypted_symmetric_key: bytes = b""
    signature: bytes = b""
    is_ephemeral: bool | None = None
    """``None`` where the sender did not say; false is the default of the format and never written."""
    priority: _Int32 | None = None


class Envelope(Struct, frozen=True, gc=False):
    """What the router needs to know of an envelope, and its bytes."""

    recipient: str
    """Canonical URN."""
    canonical: bytes
    """Canonical ProtoJSON of the whole envelope."""
    lane: Lane
    ephemeral: bool
    size: int
    """Decoded bytes of the three opaque fields."""


class _Priority(Struct, gc=False):
    priority: int = 0


_decode = msgspec.json.Decoder(_Wire).decode
_decode_priority = msgspec.json.Decoder(_Priority).decode
_encode = msgspec.json.Encoder().encode


def read(body: bytes, max_bytes: int) -> Envelope:
    """The envelope in ``body``.

    Raises ``InvalidEnvelope``; of these ``InvalidUrn`` for the recipient and ``EnvelopeTooLarge`` where the opaque
    fields hold more than ``max_bytes`` decoded bytes.
    """
    return _envelope(_read_usual(body) or _read_fully(body), max_bytes)


def message_list(messages: Iterable[tuple[str, bytes]]) -> bytes:
    """``QueuedMessageList`` of (id, canonical envelope) pairs; the envelopes go out as the bytes they are."""
    parts = [b'{"id":%b,"envelope":%b}' % (_encode(id_), canonical) for id_, canonical in messages]
    return b'{"messages":[%b]}' % b",".join(parts)


def push_command(recipient: str, canonical: bytes) -> bytes:
    """The notification command for one message (docs/specification.md#push-commands)."""
    return b'{"recipientId":%b,"envelope":%b}' % (_encode(recipient), canonical)


def priority(canonical: bytes) -> int:
    """The priority in a canonical envelope; 0 where the sender set none."""
    return _decode_priority(canonical).priority


def _envelope(wire: _Wire, max_bytes: int) -> Envelope:
    size = len(wire.encrypted_data) + len(wire.encrypted_symmetric_key) + len(wire.signature)
    if size > max_bytes:
        raise EnvelopeTooLarge(f"the opaque fields hold {size} bytes together, but the maximum is {max_bytes}")
    try:
        wire.recipient_id = urn.parse(wire.recipient_id)
    except InvalidUrn as error:
        raise InvalidUrn(f'"recipientId": {error}') from error
    wire.is_ephemeral = wire.is_ephemeral or None
    lane = Lane.EXPRESS if (wire.priority or 0) >= EXPRESS_PRIORITY else Lane.NORMAL
    return Envelope(wire.recipient_id, _encode(wire), lane, wire.is_ephemeral is True, size)


# The fast path


def _read_usual(body: bytes) -> _Wire | None:
    """The fields of a body in the usual spelling, or ``None`` where the full reader has to judge."""
    try:
        wire = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return wire if body.count(b'"') == _quotes(wire) else None


def _quotes(wire: _Wire) -> int:
    """How many quotation marks a body has at the least: those around the names and strings of ``wire``.

    A body with more of them may give a member twice, of which msgspec would take the last. It may also hold
    an escaped quotation mark, a null or an empty string; the full reader tells them apart.
    """
    strings = 1 + (wire.encrypted_data != b"") + (wire.encrypted_symmetric_key != b"") + (wire.signature != b"")
    return 4 * strings + 2 * ((wire.is_ephemeral is not None) + (wire.priority is not None))


# The full reader


def _read_fully(body: bytes) -> _Wire:
    found: dict[str, Any] = {}
    for name, value in _members(body).items():
        field = _FIELDS.get(name)
        if field is None:
            continue
        if field.name in found:
            raise InvalidEnvelope(f'"{field.encode_name}" is given under both of its names: remove one')
        found[field.name] = field.default if value is None else _READERS[field.type](name, value)
    if found.get("recipient_id", msgspec.NODEFAULT) is msgspec.NODEFAULT:
        raise InvalidEnvelope('"recipientId" is missing: name the recipient as "urn:<namespace>:<type>:<id>"')
    return _Wire(**found)


def _members(body: bytes) -> dict[str, Any]:
    if body.startswith(codecs.BOM_UTF8):
        raise InvalidEnvelope("the body begins with a byte order mark: remove it")
    try:
        document = _JSON.decode(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidEnvelope(f"the body is not UTF-8 at byte {error.start + 1}: encode it as UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise InvalidEnvelope(f"the body is not JSON: {where}; send one JSON object") from None
    except RecursionError:
        raise InvalidEnvelope("the body is nested too deeply: an envelope has no nested values") from None
    except ValueError:
        raise InvalidEnvelope("the body holds a number that is too long") from None
    if not isinstance(document, dict):
        raise InvalidEnvelope("the body is JSON, but not an object: send one JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidEnvelope("an object in the body has two members with the same name: remove one")
    return members


def _no_constant(name: str) -> NoReturn:
    raise InvalidEnvelope(f"the body is not JSON: {name} is not a JSON number")


_MOST_DIGITS = 400
"""More than any number of a protocol has; reading one takes a time that grows with their square."""


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError
    return int(text)


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidEnvelope(f'"{name}" must be a string')
    return value


_STANDARD = bytes.maketrans(b"-_", b"+/")
_LINE_BREAKS = b"\r\n"
"""What MIME and PEM encoders put between lines, and ProtoJSON readers of Go, Python and JavaScript pass over."""


def _bytes(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidEnvelope(f'"{name}" must be a string of base64')
    try:
        given = value.encode("ascii").translate(_STANDARD, _LINE_BREAKS)
        bare = given.rstrip(b"=")
        padded = bare + b"=" * (-len(bare) % 4)
        if given not in (bare, padded):
            raise binascii.Error
        return binascii.a2b_base64(padded, strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError; the latter holds the text
        raise InvalidEnvelope(
            f'"{name}" is not base64: use the standard or the URL-safe alphabet, with or without "=" padding'
        ) from None


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidEnvelope(f'"{name}" must be true or false, without quotation marks')
    return value


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")  # RFC 8259, section 6


def _int32(name: str, value: Any) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)  # exact for each int32, and what it rounds is out of range
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidEnvelope(f'"{name}" must be an integer, as a number or as a string')
    if not _INT32_MIN <= value <= _INT32_MAX:
        raise InvalidEnvelope(f'"{name}" is out of range: it must be from {_INT32_MIN} to {_INT32_MAX}')
    return value


_READERS: dict[Any, Callable[[str, Any], Any]] = {
    str: _string,
    bytes: _bytes,
    bool | None: _bool,
    _Int32 | None: _int32,
}
_FIELDS = {name: field for field in msgspec.structs.fields(_Wire) for name in (field.name, field.encode_name)}
