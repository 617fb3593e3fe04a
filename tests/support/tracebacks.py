"""What a process says of an error that nobody expected: in a log entry of ours, or Python's own words."""

from __future__ import annotations

import re

# An entry of ours has no line "Traceback (most recent call last)"; in JSON its quotation marks are escaped.
_PLACE = re.compile(r'File \\?"[^"]+", line \d+')
_BEFORE, _AFTER = 500, 2500


def traceback_in(log: str) -> str:
    """The surroundings of the first traceback in ``log``; empty where there is none."""
    found = _PLACE.search(log)
    return log[max(0, found.start() - _BEFORE) : found.start() + _AFTER] if found else ""
