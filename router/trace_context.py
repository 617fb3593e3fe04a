"""W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a request belongs to."""

from __future__ import annotations

import re

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
