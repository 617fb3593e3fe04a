"""Every error that the router raises on purpose, under one root. The edge decides how a client sees each.

The code that calls a library translates its errors into these, with the original as ``__cause__``.
"""

from __future__ import annotations

from typing import Literal

TokenProblem = Literal[
    "missing",
    "invalid_token",
    "expired",
    "not_yet_valid",
    "algorithm",
    "critical",
    "signature",
    "unknown_key",
    "issuer",
    "audience",
    "claims",
    "subject",
]
"""Why a token is rejected: a stable word, the label of the metric."""


class RouterError(Exception):
    """Everything that the router raises on purpose."""


class InvalidEnvelope(RouterError):
    """The bytes are not a SecureEnvelope; the message says which field is wrong and how to fix it."""


class EnvelopeTooLarge(InvalidEnvelope):
    """The opaque fields hold more decoded bytes than ``limits.envelope_bytes``."""


class InvalidUrn(InvalidEnvelope):
    """The text is neither a ``urn:<namespace>:<type>:<id>`` nor a bare id."""


class InvalidIdempotencyKey(RouterError):
    """The Idempotency-Key header is not a valid key."""


class InvalidRequest(RouterError):
    """A request other than an envelope is malformed; the message says how to fix it."""


class InvalidInput(RouterError):
    """A file for a command is invalid; the message says where and how to fix it."""


class Unauthorized(RouterError):
    """The token is missing, malformed, expired, or not signed by a key that the configuration trusts.

    Neither ``reason`` nor the message repeats the token.
    """

    def __init__(self, message: str, reason: TokenProblem = "invalid_token") -> None:
        super().__init__(message)
        self.reason = reason


class RateLimited(RouterError):
    """A sender has exceeded ``limits.send_rate``, ``limits.pair_rate`` or ``limits.outbound_bytes``; ``retry_after`` is
    in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMuchWork(RateLimited):
    """A user causes more work than ``limits.work_rate`` allows, or has too many requests running."""


class TooManyConnections(RouterError):
    """The user already holds ``limits.connections_per_user`` live connections."""


class Draining(RouterError):
    """The process is stopping and accepts no new work."""


class Unavailable(RouterError):
    """A dependency failed or did not answer in time; the same call may succeed later."""

    dependency: str = ""
    """The role of that dependency, if known."""


class Forbidden(Unavailable):
    """A dependency denies the router this operation; the message says which right is missing."""


class Refused(RouterError):
    """A dependency will never accept this call, so a retry is useless. It may have done parts of it."""


class StorageFull(Unavailable):
    """The store's volume is full. No accepted message is lost."""


class NoRoom(RouterError):
    """Less space is free than ``embedded.reserve_bytes``: sends are refused, while accepted messages are fetched,
    acknowledged and moved as usual."""


class ConfigError(RouterError):
    """The configuration cannot work; the message names the key and says how to fix it."""


class DataDirError(ConfigError):
    """The data directory cannot be used: read-only, held by another process, or of a newer version."""


class DataDirLost(DataDirError, Unavailable):
    """The data directory became read-only or is damaged while in use. The message being written is not at fault, so the
    write may be retried."""
