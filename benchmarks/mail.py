"""The mail of the load: envelopes of 1 KiB, and the ledger that proves that each one arrived once and in order."""

from __future__ import annotations

import base64
import itertools
import os
import struct
import time

import msgspec
from msgspec import Struct

from benchmarks.load_http import LoadError

OPAQUE_BYTES = 1024
"""Decoded bytes of the three opaque fields, as a short sealed text has them."""
_KEY_BYTES = 80  # an X25519 public key and a wrapped AES-256 key
_SIGNATURE_BYTES = 64  # Ed25519
_STAMP = struct.Struct("!HIQx")
"""Sender, number within (sender, recipient), ns when it was sent: the first bytes of the sealed data."""
_STAMP_CHARS = _STAMP.size * 4 // 3


def user(name: str, number: int) -> str:
    """The URN of a person of the load."""
    return f"urn:sm:user:{name}{number}"


class Stamp(Struct, frozen=True, gc=False):
    sender: int
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


class _Batch(Struct):
    messages: list[Received] = []


batch = msgspec.json.Decoder(_Batch).decode


def _sealed(size: int) -> str:
    return base64.b64encode(os.urandom(size)).decode()


_REST = (
    f'{_sealed(OPAQUE_BYTES - _KEY_BYTES - _SIGNATURE_BYTES - _STAMP.size)}",'
    f'"encryptedSymmetricKey":"{_sealed(_KEY_BYTES)}","signature":"{_sealed(_SIGNATURE_BYTES)}"}}'
).encode()


def envelope(recipient: str, sender: int = 0, number: int = 0) -> bytes:
    """An envelope that carries who sent it as the how-manieth to this recipient, and when."""
    stamp = base64.b64encode(_STAMP.pack(sender, number, time.perf_counter_ns()))
    return b'{"recipientId":"%b","encryptedData":"%b%b' % (recipient.encode(), stamp, _REST)


class Ledger:
    """What was sent to one recipient, and what they hold.

    Nothing lost, nothing under a second id, nothing again after its acknowledgement, and in order for each sender:
    that is, the numbers of each sender arrive as 0, 1, 2 and so on.
    """

    def __init__(self) -> None:
        self._next: dict[int, itertools.count[int]] = {}
        self._accepted: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self._ids: set[str] = set()

    def number(self, sender: int) -> int:
        """The number of this sender's next message."""
        return next(self._next.setdefault(sender, itertools.count()))

    def accepted(self, sender: int) -> None:
        """One more was answered 202."""
        self._accepted[sender] = self._accepted.get(sender, 0) + 1

    def hold(self, received: Received) -> Stamp:
        """The recipient has this one now; raises ``LoadError`` where it should not have come, or not yet."""
        stamp = received.stamp
        wanted = self._held.get(stamp.sender, 0)
        if received.id in self._ids:
            raise LoadError(f"{received.id} came again after it was acknowledged")
        if stamp.number != wanted:
            fault = "came twice, under two ids" if stamp.number < wanted else "is missing or late"
            raise LoadError(f"of sender {stamp.sender}, message {min(wanted, stamp.number)} {fault}")
        self._ids.add(received.id)
        self._held[stamp.sender] = wanted + 1
        return stamp

    @property
    def missing(self) -> int:
        """How many were accepted and are not held yet."""
        return sum(self._accepted.values()) - sum(self._held.values())

    def check(self) -> None:
        """Raise ``LoadError`` unless all that was accepted is held."""
        if self._accepted != self._held:
            raise LoadError(f"{self.missing} messages were accepted and never arrived")
