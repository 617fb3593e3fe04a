"""The smart client: sends, pulls, saves, acknowledges. ``send``, ``listen`` and the tests use it; so may you."""

from router.client.client import Outcome, Received, Refused, RouterClient, Unreachable

__all__ = ["Outcome", "Received", "Refused", "RouterClient", "Unreachable"]
