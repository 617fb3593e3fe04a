"""What the exit codes mean: one table, after sysexits(3) where that has a word for it."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from router import errors
from router.cli.stdio import OutputFailed, ReaderGone


class Code(IntEnum):
    """The exit codes of every command; ``meaning`` is what the documentation says of each."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "It worked."
    FAILURE = 1, "It failed for a reason that has no code of its own."
    USAGE = 2, "The command line is wrong: an unknown command or option, a missing or bad argument."
    WARNINGS = 10, "`doctor`: the worst finding is a warning: it works now, but will cause trouble in production."
    ERRORS = 11, "`doctor`: the worst finding is an error: something does not work, or loses mail."
    BROKEN_PROMISE = (
        12,
        "`bench`, `audit`: the router broke a promise; the report says which one and how often, or what is missing.",
    )
    CONFORMANCE = 13, "`conformance`: the client failed a moment; the report says which one, and what was seen."
    DATA = 65, "The input is invalid: not a SecureEnvelope, not a URN, or too large. Trying again does not help."
    UNAVAILABLE = 69, "The router, or a service that it depends on, does not answer. Try again later."
    SOFTWARE = 70, "A bug in the router. `ROUTER_DEBUG=1` shows where."
    IO = (
        74,
        "A file, standard input or standard output cannot be read or written, for example because the disk is full.",
    )
    TEMPORARY = 75, "A temporary reason: another migrator, a rate limit, or a router that is stopping. Try again soon."
    DENIED = 77, "The token is missing, expired or not trusted."
    CONFIG = 78, "The configuration or the data directory is wrong."
    INTERRUPTED = 130, "Interrupted by Ctrl-C (SIGINT)."
    BROKEN_PIPE = 141, "The process that reads the output has ended, such as `head`."


_BY_ERROR: tuple[tuple[type[Exception], Code], ...] = (
    (errors.InvalidEnvelope, Code.DATA),
    (errors.InvalidRequest, Code.DATA),
    (errors.InvalidIdempotencyKey, Code.DATA),
    (errors.InvalidInput, Code.DATA),
    (errors.Unavailable, Code.UNAVAILABLE),
    (errors.RateLimited, Code.TEMPORARY),
    (errors.TooManyConnections, Code.TEMPORARY),
    (errors.Draining, Code.TEMPORARY),
    (errors.Unauthorized, Code.DENIED),
    (errors.ConfigError, Code.CONFIG),
    (ReaderGone, Code.BROKEN_PIPE),
    (OutputFailed, Code.IO),
    (errors.RouterError, Code.FAILURE),
    (OSError, Code.IO),
)

_BY_STATUS = {400: Code.DATA, 413: Code.DATA, 415: Code.DATA, 401: Code.DENIED, 403: Code.DENIED, 429: Code.TEMPORARY}


def code_of(error: Exception) -> Code:
    """The exit code for what ended a command."""
    status = getattr(error, "status", None)  # A client's errors have the status that the router answered.
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Code.SOFTWARE)
