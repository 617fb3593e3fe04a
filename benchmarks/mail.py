"""The mail of the load: envelopes of 1 KiB, each with a stamp that is cheap to make and to read."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterable

import msgspec
from msgspec import Struct

OPAQUE_BYTES = 1024
"""Decoded bytes of the three opaque fields, as a short sealed text has them."""
_KEY_BYTES = 80  # an X25519 public key and a wrapped AES-256 key
_SIGNATURE_BYTES = 64  # Ed25519
_STAMP = struct.Struct("!IQ")
"""Number among the messages of its recipient, ns when it was sent: the first bytes of the sealed data."""
_STAMP_CHARS = _STAMP.size * 4 // 3


def user(name: str, number: int) -> str:
    """The URN of a person of the load."""
    return f"urn:sm:user:{name}{number}"


class Stamp(Struct, frozen=True, gc=False):
    number: int
    sent_at: int
    """ns, by ``time.perf_counter_ns``."""


class _Envelope(Struct, rename="camel"):
    encrypted_data: str


class Received(Struct):
    """A message of a batch."""

    id: str
    envelope: _Envelope

    @property
    def stamp(self) -> Stamp:
        return Stamp(*_STAMP.unpack(base64.b64decode(self.envelope.encrypted_data[:_STAMP_CHARS])))


def received(id_: str, envelope: bytes) -> Received:
    """A message that came with its id beside it."""
    return Received(id_, _envelope(envelope))


class _Batch(Struct):
    messages: list[Received] = []


class _Accepted(Struct):
    id: str


class _Results(Struct):
    results: list[_Accepted]


batch = msgspec.json.Decoder(_Batch).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_accepted = msgspec.json.Decoder(_Accepted).decode
_results = msgspec.json.Decoder(_Results).decode


def accepted(answer: bytes) -> str:
    """The id in a 202."""
    return _accepted(answer).id


def together(envelopes: Iterable[bytes]) -> bytes:
    """The body that sends ``envelopes`` in one request."""
    return b'{"messages":[%b]}' % b",".join(b'{"envelope":%b}' % envelope for envelope in envelopes)


def all_accepted(answer: bytes) -> list[str]:
    """The ids in the answer to a batch of which nothing is refused."""
    return [result.id for result in _results(answer).results]


def _sealed(size: int) -> str:
    return base64.b64encode(os.urandom(size)).decode()


_REST = (
    f'{_sealed(OPAQUE_BYTES - _KEY_BYTES - _SIGNATURE_BYTES - _STAMP.size)}",'
    f'"encryptedSymmetricKey":"{_sealed(_KEY_BYTES)}","signature":"{_sealed(_SIGNATURE_BYTES)}"}}'
).encode()


def envelope(recipient: str, number: int = 0, sent_at: int = 0) -> bytes:
    """An envelope that carries the how-manieth to this recipient it is, and when it was sent."""
    stamp = base64.b64encode(_STAMP.pack(number, sent_at))
    return b'{"recipientId":"%b","encryptedData":"%b%b' % (recipient.encode(), stamp, _REST)
