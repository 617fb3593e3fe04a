"""Envelopes of a load: random bytes, each with a mark that only the same run can make and read."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from enum import Enum

import msgspec
from msgspec import Struct

LEAST_BYTES = 256
"""Least decoded bytes of the three opaque fields: the mark, the other two fields, and some payload."""
RUN_BYTES = 8
_KEY_BYTES = 80  # an X25519 public key and a wrapped AES-256 key
_SIGNATURE_BYTES = 64  # Ed25519
_DIGEST_BYTES = 16
_HEAD = struct.Struct(f"!{RUN_BYTES}sIQ")
_DATA_AT = _HEAD.size + _DIGEST_BYTES


class Mark(Struct, frozen=True, gc=False):
    """Which message this is: the recipient's number, and the message's number for this recipient, both from 0."""

    recipient: int
    number: int


class Stray(Enum):
    """An envelope without a valid mark."""

    FOREIGN = "not of this run"
    ALTERED = "of this run, but not what was sent"


class _Envelope(Struct, rename="camel"):
    recipient_id: str
    encrypted_data: bytes
    encrypted_symmetric_key: bytes
    signature: bytes


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Envelope).decode


class Marks:
    """Makes and reads the envelopes of one run."""

    def __init__(self, size: int, random: Callable[[int], bytes] = os.urandom) -> None:
        """``size``: decoded bytes of the three opaque fields, ``LEAST_BYTES`` at least."""
        self.run = random(RUN_BYTES)
        self._secret = random(_DIGEST_BYTES)
        self._random = random
        self._size = size - _DATA_AT - _KEY_BYTES - _SIGNATURE_BYTES

    def envelope(self, user: str, mark: Mark) -> bytes:
        """The JSON of an envelope for ``user``."""
        head = _HEAD.pack(self.run, mark.recipient, mark.number)
        data, key, signature = map(self._random, (self._size, _KEY_BYTES, _SIGNATURE_BYTES))
        digest = self._digest(user, head, data, key, signature)
        return _encode(_Envelope(user, head + digest + data, key, signature))

    def read(self, envelope: bytes | msgspec.Raw) -> Mark | Stray:
        """The mark if every byte of the envelope is as it was sent, else a ``Stray``."""
        try:
            opened = _decode(envelope)
        except msgspec.MsgspecError:
            return Stray.FOREIGN
        head, digest = opened.encrypted_data[: _HEAD.size], opened.encrypted_data[_HEAD.size : _DATA_AT]
        if not head.startswith(self.run) or len(digest) < _DIGEST_BYTES:
            return Stray.FOREIGN
        data = opened.encrypted_data[_DATA_AT:]
        if digest != self._digest(opened.recipient_id, head, data, opened.encrypted_symmetric_key, opened.signature):
            return Stray.ALTERED
        _, recipient, number = _HEAD.unpack(head)
        return Mark(recipient, number)

    def _digest(self, user: str, head: bytes, data: bytes, key: bytes, signature: bytes) -> bytes:
        digest = hashlib.blake2b(key=self._secret, digest_size=_DIGEST_BYTES)
        # The lengths make the boundaries between the fields part of the digest.
        for part in (user.encode(), head, data, key, signature):
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
        return digest.digest()
