"""Where each dependency is, in words for people: no library and no server is asked, and no password is told."""

from __future__ import annotations

import os
from enum import StrEnum

from msgspec import Struct

from router.config.redis_url import parse
from router.config.sections import Config


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


def places(config: Config) -> dict[Role, Place]:
    """Where ``config`` says that each dependency is."""
    ingress, push = config.ingress, config.push
    letters = f"topic {ingress.dead_letter_topic}"
    found = (
        (Role.INGRESS, ingress.kind, f"topic {ingress.topic}, subscription {ingress.subscription}"),
        (Role.ONLINE, config.online.kind, f"collection {config.online.collection}"),
        (Role.COLD, config.cold.kind, f"collection {config.cold.collection}"),
        (Role.PUSH, push.kind, f"topic {push.topic}"),
        (Role.DEAD_LETTERS, ingress.kind, letters),
    )
    return {role: Place(role, kind, _address(config, kind, part)) for role, kind, part in found}


def _address(config: Config, kind: str, part: str) -> str:
    if kind == "redis":
        return _redis(config)
    if kind in ("pubsub", "firestore"):
        emulator = os.environ.get("PUBSUB_EMULATOR_HOST" if kind == "pubsub" else "FIRESTORE_EMULATOR_HOST")
        return f"project {config.google.project}, {part}" + (f", emulator {emulator}" if emulator else "")
    return str(config.embedded.data_dir) if kind == "embedded" else ""


def _redis(config: Config) -> str:
    url = config.online.url
    found = parse(url.get_secret_value() if url is not None else "", config.online.mode)
    hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in found.hosts)
    return f"{hosts} ({config.online.mode})"
