"""Request ids: what the log, the answer and the caller call one request; and the trace that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable

from router.trace_context import TRACEPARENT, trace_id
from router.web.headers import Headers

_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
REQUEST_ID_BYTES = 8
"""Bytes of a request id. They are random, since a counter would tell how many requests others make."""


class RequestIds:
    """Takes the ids that callers give, and makes one for each other request."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy

    def of(self, headers: Headers) -> str:
        """The caller's ``X-Request-Id`` if it is valid, else a new one."""
        given = headers.get("x-request-id")
        return given if given and _SANE.fullmatch(given) else self._entropy(REQUEST_ID_BYTES).hex()


def trace_id_of(headers: Headers) -> str | None:
    """The trace that the caller's ``traceparent`` names. Of several, none counts."""
    given = headers.get(TRACEPARENT)
    return None if given is None or len(headers.every(TRACEPARENT)) > 1 else trace_id(given)
