"""The smart client: sends, pulls, saves, acknowledges. ``send``, ``listen`` and the tests use it; so may you."""

from router.client.client import Outcome, RouterClient, Save
from router.client.errors import Refused, TokenRefused, TokenUnavailable, Unreachable
from router.client.messages import Envelope, Received
from router.client.saving import Directory, UnsafeId
from router.client.tokens import TokenSource
from router.errors import ConfigError, InvalidEnvelope, InvalidIdempotencyKey, RouterError, Unauthorized

__all__ = [
    "ConfigError",
    "Directory",
    "Envelope",
    "InvalidEnvelope",
    "InvalidIdempotencyKey",
    "Outcome",
    "Received",
    "Refused",
    "RouterClient",
    "RouterError",
    "Save",
    "TokenRefused",
    "TokenSource",
    "TokenUnavailable",
    "Unauthorized",
    "Unreachable",
    "UnsafeId",
]
