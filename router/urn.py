"""URNs of users: ``urn:<namespace>:<type>:<id>`` (docs/specification.md#urns)."""

from __future__ import annotations

import re

from router.errors import InvalidUrn

MAX_BYTES = 256
"""Of the whole URN, in UTF-8."""
_BARE_PREFIX = "urn:sm:user:"
_FORM = '"urn:<namespace>:<type>:<id>"'

# Control characters (C0, DEL, C1), every kind of white space and line end, and lone surrogates.
_REFUSED = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff"
_PART = rf"[^:{_REFUSED}]+"
_URN = re.compile(f"urn:{_PART}:{_PART}:{_PART}")
_REFUSED_CHARACTER = re.compile(f"[{_REFUSED}]")


def parse(text: str) -> str:
    """The canonical URN of ``text``, which is one already or a bare id: ``bob`` is ``urn:sm:user:bob``.

    Neither case nor Unicode form is normalized: two spellings are two users. Raises ``InvalidUrn``, whose
    message says what is wrong and repeats nothing of ``text``.
    """
    urn = text if ":" in text else _BARE_PREFIX + text
    # The length comes first, so that a megabyte is refused without looking at it.
    if len(urn) <= MAX_BYTES and _URN.fullmatch(urn) and (urn.isascii() or len(urn.encode()) <= MAX_BYTES):
        return urn
    raise InvalidUrn(_fault(urn) if text else f"the URN is empty: write {_FORM} or a bare id")


def short(urn: str) -> str:
    """``urn`` as people write it: ``bob`` for ``urn:sm:user:bob``."""
    bare = urn.removeprefix(_BARE_PREFIX)
    return urn if ":" in bare else bare


def _fault(urn: str) -> str:
    size = len(urn.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        return f"the URN is {size} bytes long in UTF-8, but the maximum is {MAX_BYTES}: shorten its id"
    if found := _REFUSED_CHARACTER.search(urn):
        return f"the URN holds the character U+{ord(found[0]):04X}: remove white space and control characters"
    parts = urn.split(":")
    if parts[0] != "urn":
        return f'the URN does not begin with "urn:": write {_FORM} or a bare id without a colon'
    if len(parts) != 4:
        return f"the URN has {len(parts)} parts instead of four: write {_FORM}, without a colon in any part"
    return f"part {parts.index('') + 1} of the URN is empty: write {_FORM} with all four parts"
