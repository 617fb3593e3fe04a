"""Message ids: given at acceptance, for life."""

from __future__ import annotations

import hashlib
import hmac
import re

from router.errors import InvalidIdempotencyKey

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def new_id(now: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) from the clock's µs since 1970 and ten random bytes."""
    milliseconds = (now // 1000) & 0xFFFF_FFFF_FFFF
    value = (milliseconds << 80) | int.from_bytes(entropy[:10], "big")
    return _text(value, 7)


def keyed_id(secret: bytes, sender: str, key: str) -> str:
    """The one id of whatever ``sender`` sends under the Idempotency-Key ``key``: a UUIDv8 that needs no store.

    A keyed hash, so that nobody without ``secret`` can learn the sender from the id.
    """
    # A URN holds no NUL, so sender and key cannot run into each other.
    digest = hmac.digest(secret, f"{sender}\0{key}".encode(), hashlib.sha256)
    return _text(int.from_bytes(digest[:16], "big"), 8)


def parse_key(header: str) -> str:
    """The Idempotency-Key of a header, bare or as a quoted string; raises ``InvalidIdempotencyKey``."""
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey("Idempotency-Key must be 1 to 255 visible ASCII characters, such as a UUID")
    return key


def _text(value: int, version: int) -> str:
    value = (value & ~(0xF << 76)) | (version << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
