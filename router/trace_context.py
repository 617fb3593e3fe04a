"""W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a request belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
"""The header fields of a request, and the attributes of a Pub/Sub message."""
_FORM = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)


def trace_id(traceparent: str | None) -> str | None:
    """The id in the value of a ``traceparent``: 32 hexadecimal digits; ``None`` if none is valid."""
    found = None if traceparent is None else _FORM.fullmatch(traceparent)
    # Later versions may say more behind what the first one says.
    if found is None or (found["version"] == "00" and found["more"] is not None):
        return None
    return found[2]


TRACE_SECONDS = 7 * 86_400
"""How long a store remembers the trace of a message that nobody acknowledges."""
STATE_BYTES = 512
"""A ``tracestate`` that is longer goes no further than its request (W3C Trace Context, section 3.3.1.5)."""


def joined(traceparent: str, tracestate: str) -> str:
    """Both in one value, which a message keeps: ``traceparent``, a space, ``tracestate``."""
    return f"{traceparent} {tracestate}" if 0 < len(tracestate) <= STATE_BYTES else traceparent


def parted(kept: str) -> Iterator[tuple[str, str]]:
    """The header fields or attributes that ``joined`` has joined; none of an empty value."""
    traceparent, _, tracestate = kept.partition(" ")
    if traceparent:
        yield TRACEPARENT, traceparent
    if tracestate:
        yield TRACESTATE, tracestate


def kept(traceparent: str | None, tracestate: str | None) -> str:
    """``joined`` of what somebody else has sent; empty if that is not valid."""
    if traceparent is None or trace_id(traceparent) is None:
        return ""
    state = tracestate or ""
    return joined(traceparent, state if state.isascii() and state.isprintable() else "")
