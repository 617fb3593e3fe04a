"""The one error root. Each class says in its docstring what it means; the edge decides how it is shown.

Errors of libraries are translated where they arise, with the original as ``__cause__``.
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
"""Why a token is not believed: a stable word for the metric."""


class RouterError(Exception):
    """Everything that the router raises on purpose."""


class InvalidEnvelope(RouterError):
    """The bytes are no SecureEnvelope; the message says which field is wrong and how to mend it."""


class EnvelopeTooLarge(InvalidEnvelope):
    """The opaque fields hold more decoded bytes than ``limits.envelope_bytes``."""


class InvalidUrn(InvalidEnvelope):
    """The text is no ``urn:<namespace>:<type>:<id>`` and no bare id."""


class InvalidIdempotencyKey(RouterError):
    """The Idempotency-Key header cannot be a key."""


class InvalidRequest(RouterError):
    """A request other than an envelope is malformed; the message says how to mend it."""


class InvalidInput(RouterError):
    """A file that a command was given is not what it should be; the message says where and how to mend it."""


class Unauthorized(RouterError):
    """The token is missing, malformed, expired, or not signed by whom the configuration trusts.

    Neither ``reason`` nor the message repeats the token.
    """

    def __init__(self, message: str, reason: TokenProblem = "invalid_token") -> None:
        super().__init__(message)
        self.reason = reason


class RateLimited(RouterError):
    """A sender is over ``limits.send_rate``, ``limits.pair_rate`` or ``limits.outbound_bytes``; ``retry_after`` is in
    seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooMuchWork(RateLimited):
    """A user asks for more work than ``limits.work_rate`` allows, or has too many requests under way."""


class TooManyConnections(RouterError):
    """The user already holds ``limits.connections_per_user`` live connections."""


class Draining(RouterError):
    """The process is stopping and takes no new work."""


class Unavailable(RouterError):
    """A dependency failed or did not answer in time; the same call may succeed later."""

    dependency: str = ""
    """Which one, by its role, where that is known."""


class Forbidden(Unavailable):
    """A dependency knows the router and does not let it do this; the message says which right to give it."""


class Refused(RouterError):
    """A dependency will never take this, however often it is tried; what was asked together with it may have been
    done."""


class StorageFull(Unavailable):
    """There is no room left to write; nothing that was accepted is lost."""


class NoRoom(RouterError):
    """There is less room than ``embedded.reserve_bytes`` keeps free: nothing new is accepted, and what was accepted is
    fetched, acknowledged and moved as ever."""


class ConfigError(RouterError):
    """The configuration cannot work; the message names the key and how to mend it."""


class DataDirError(ConfigError):
    """The data directory cannot be used: read-only, held by another process, or of a newer version."""


class DataDirLost(DataDirError, Unavailable):
    """The data directory could be used, and cannot be now: read-only since, or damaged. That is no fault of what was to
    be written."""
