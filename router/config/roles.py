"""What the services depend on, and which kind of backend keeps each of it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

from router.config.sections import Config

GOOGLE_KINDS = ("firestore", "pubsub")


class Role(StrEnum):
    """What the services depend on, by what it does for them; also the metric's label."""

    INGRESS = "ingress"
    ONLINE = "online"
    COLD = "cold"
    PUSH = "push"
    DEAD_LETTERS = "dead-letters"


class Place(Struct, frozen=True):
    """A dependency, the backend that it is (``redis``), and where that is."""

    role: Role
    backend: str
    address: str
    """In words for people, and without a password."""


def kinds(config: Config) -> dict[Role, str]:
    """Which kind of backend ``config`` sets for each role."""
    ingress = config.ingress.kind
    return {
        Role.INGRESS: ingress,
        Role.ONLINE: config.online.kind,
        Role.COLD: config.cold.kind,
        Role.PUSH: config.push.kind,
        Role.DEAD_LETTERS: ingress,
    }


def at_google(config: Config, roles: Iterable[Role] = Role) -> bool:
    """Whether a service of Google's keeps one of ``roles``."""
    return any(kinds(config)[role] in GOOGLE_KINDS for role in roles)


def kept_by(config: Config, kind: str) -> frozenset[Role]:
    """The roles that backends of this ``kind`` keep."""
    return frozenset(role for role, set_to in kinds(config).items() if set_to == kind)


def keeps_all(config: Config, kind: str) -> bool:
    """Whether backends of this ``kind`` keep all that a message passes: ingress, both tiers, and push commands if there
    are any."""
    return {Role.INGRESS, Role.ONLINE, Role.COLD} <= kept_by(config, kind) and config.push.kind in (kind, "none")
