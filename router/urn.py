"""URNs of users: ``urn:<namespace>:<type>:<id>`` (spec, section 3)."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from router.errors import InvalidUrn

MAX_BYTES = 256
_BARE_PREFIX = "urn:sm:user:"
_REFUSED_CATEGORIES = {"Cc", "Cs", "Zl", "Zp", "Zs"}
"""Control characters, lone surrogates, and every kind of white space."""


@lru_cache(maxsize=8192)
def parse(text: str) -> str:
    """The canonical URN of ``text``, which is one already or a bare id; raises ``InvalidUrn``.

    Nothing is normalized: two spellings are two users.
    """
    urn = text if ":" in text else _BARE_PREFIX + text
    parts = urn.split(":")
    if len(parts) != 4 or parts[0] != "urn" or not all(parts):
        raise InvalidUrn('it must be "urn:<namespace>:<type>:<id>" with four non-empty parts, or a bare id')
    if not urn.isascii() or not urn.isprintable() or " " in urn:
        for character in urn:
            if unicodedata.category(character) in _REFUSED_CATEGORIES:
                raise InvalidUrn(f"it holds the character U+{ord(character):04X}; leave out white space and controls")
    if len(urn.encode()) > MAX_BYTES:
        raise InvalidUrn(f"it is longer than {MAX_BYTES} bytes")
    return urn
