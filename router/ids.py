"""Message ids: given at acceptance, for life."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from router.errors import InvalidIdempotencyKey

ENTROPY_BYTES = 10
"""How many random bytes ``new_id`` takes."""
MAX_KEY_LENGTH = 255
"""Characters of an Idempotency-Key, without the quotes around it."""

_LENGTH, _VERSION_AT = 36, 14
"""Characters of a UUID, and which of them is its version."""
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')  # sf-string of RFC 9651, section 3.3.3
_ESCAPED = re.compile(r"\\(.)")


class Entropy:
    """Random bytes from the system, asked for many at a time: each asking lets another thread of the process run."""

    def __init__(self, ahead: int = 4096) -> None:
        self._ahead = ahead
        self._bytes = b""
        self._at = 0

    def __call__(self, count: int) -> bytes:
        """``count`` bytes that were not given out before."""
        if self._at + count > len(self._bytes):
            self._bytes, self._at = secrets.token_bytes(max(count, self._ahead)), 0
        self._at += count
        return self._bytes[self._at - count : self._at]


def new_id(now_us: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) from µs since 1970 and ``ENTROPY_BYTES`` random bytes.

    It tells the millisecond and no more: a recipient is not to learn when exactly a message was sent.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"entropy must be {ENTROPY_BYTES} bytes")
    milliseconds = now_us // 1000 & 0xFFFF_FFFF_FFFF
    return _uuid(milliseconds.to_bytes(6, "big") + entropy, 7)


def accepted_at(message_id: str) -> int | None:
    """When the message of this id was accepted, in µs since 1970: the beginning of that millisecond. ``None`` if the id
    does not tell: a keyed or a foreign one, or one that somebody made up."""
    if len(message_id) != _LENGTH or message_id[_VERSION_AT] != "7":
        return None
    try:
        milliseconds = int(message_id[:8] + message_id[9:13], 16)
    except ValueError:
        return None
    return milliseconds * 1000 if milliseconds >= 0 else None


def keyed_id(secret: bytes, sender: str, recipient: str, key: str) -> str:
    """The one id of whatever ``sender`` sends to ``recipient`` under the Idempotency-Key ``key``, so that no store is
    needed. To another recipient it is another one: else what becomes of one message would tell of the other.

    A UUIDv8 (RFC 9562, section 5.8) of their HMAC-SHA256: nobody without ``secret`` can test a guess at the
    sender against it.
    """
    # A length in front of each part keeps ("ab", "c") and ("a", "bc") apart.
    parts = [part.encode() for part in (sender, recipient, key)]
    named = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return _uuid(hmac.digest(secret, named, "sha256")[:16], 8)


def foreign_id(topic: str, name: str) -> str:
    """The one id of what others have published to ``topic`` without an id, where it is called ``name``.

    A UUIDv8 of their SHA-256: each redelivery gives it the same id.
    """
    return _uuid(hashlib.sha256(f"{topic}\0{name}".encode()).digest()[:16], 8)


def parse_key(header: str) -> str:
    """The key in an Idempotency-Key header: a quoted string (IETF draft-ietf-httpapi-idempotency-key-header)
    or, as many clients send it, the same without quotes.

    Raises ``InvalidIdempotencyKey`` unless it is 1 to ``MAX_KEY_LENGTH`` visible ASCII characters.
    """
    key = header.strip(" \t")
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            raise InvalidIdempotencyKey('the Idempotency-Key is not a quoted string: write "key" or the bare key')
        key = _ESCAPED.sub(r"\1", quoted[1])
    if len(key) > MAX_KEY_LENGTH or not _VISIBLE.fullmatch(key):
        raise InvalidIdempotencyKey(
            f"the Idempotency-Key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters: use for example a UUID"
        )
    return key


def _uuid(octets: bytes, version: int) -> str:
    value = int.from_bytes(octets, "big")
    value = value & ~(0xF << 76) | version << 76  # the version's four bits
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant's two bits: RFC 9562
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
