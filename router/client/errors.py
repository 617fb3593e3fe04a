"""What a client raises: all of it ``RouterError``, each class with what to do.

``router.errors`` has the caller's own mistakes: ``InvalidIdempotencyKey``, ``InvalidEnvelope``, ``Unauthorized`` (the
token function gave something else than a token) and ``ConfigError`` (the environment names a useless proxy).
"""

from __future__ import annotations

from router.errors import RouterError, Unauthorized, Unavailable


class Refused(RouterError):
    """The router refuses the request for good: correct it; the same one fails again.

    ``status``, ``problem`` (the stable end of the problem's type, empty where something else than a router answers) and
    ``detail`` say why.
    """

    def __init__(self, status: int, detail: str, problem: str = "") -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.problem = problem


class TokenRefused(Refused, Unauthorized):
    """The router refuses the token, and the one that it asked for after it: let the user sign in again."""

    def __init__(self, detail: str) -> None:
        Refused.__init__(self, 401, detail, "unauthorized")
        self.reason = "invalid_token"


class Unreachable(Unavailable):
    """The router gave no successful answer within the time budget: do the same again later.

    After a send, the router may have the message: send it again under ``idempotency_key``, and it is one message.
    """

    idempotency_key: str | None = None
    """Under which the message was sent; ``None`` of another request."""


class TokenUnavailable(Unavailable):
    """Raise it in a token function that can give no token now: the client asks again, as after no answer."""
