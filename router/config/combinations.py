"""Values that are right one by one and cannot work together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from router import tracing
from router.config import endpoints, origins, redis_url
from router.config.paths import is_homeless
from router.config.roles import GOOGLE_KINDS, kinds
from router.config.sections import Auth, Config, Online, Push
from router.config.sources import Problem
from router.config.token_algorithms import SIGNATURES

FIRESTORE_ENVELOPE_BYTES = 750_000
"""A third more in base64, with some room for names and the other fields: less than 1 MiB, the most of a document."""

DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
"""What Firestore takes for the name of a database."""

SECRETLESS = (
    'is not set, but ingress.kind = "pubsub" needs it: a message that is retried must get the same id on each API '
    "node; set the same 32 or more random characters on all of them (openssl rand -hex 32)"
)
SECRET_CHARACTERS = 16
SECRET_VARIETY = 8
"""A random secret has at least this many different characters, except one in millions."""
GUESSABLE = (
    f"can be guessed: it has fewer than {SECRET_CHARACTERS} characters, or fewer than {SECRET_VARIETY} different ones. "
    "Anybody who knows it and an id can find out by trying who sent the message to whom; set 32 or more random "
    "characters (openssl rand -hex 32)"
)
PUBSUB_ENVELOPE_BYTES = 7_000_000
"""A third more in base64, with some room for names, the other fields and attributes: less than 10 MB."""


def is_loopback(host: str | None) -> bool:
    """Whether ``host``, a name or an address, is this machine, which nobody else reaches: ``localhost``,
    ``127.0.0.0/8`` (RFC 1122, section 3.2.1.3), ``::1`` (RFC 4291, section 2.5.3)."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def contradictions(config: Config) -> list[Problem]:
    """All that does not fit together, in the order of the sections."""
    found = [
        *_server(config),
        *_auth(config.auth),
        *_ingress(config),
        *_online(config.online),
        *_push(config.push),
        *_paths(config),
        *_google(config),
    ]
    return [Problem(key, "", message) for key, message in found]


def emulators(config: Config, environ: Mapping[str, str]) -> list[Problem]:
    """Variables that name an emulator which is used, and cannot be its address."""
    used = {endpoints.PUBSUB_EMULATOR: config.uses_pubsub, endpoints.FIRESTORE_EMULATOR: config.uses_firestore}
    found = []
    for name, value in ((name, environ.get(name)) for name, is_used in used.items() if is_used):
        try:
            endpoints.emulator(value or "none:1")
        except ValueError as error:
            found.append(Problem(name, name, str(error)))
    return found


def secretless(config: Config) -> list[Problem]:
    """What the API lacks, and no other service: with a secret that it does not need, each would be one more to rob."""
    if config.ingress.kind != "pubsub" or config.ingress.idempotency_secret is not None:
        return []
    return [Problem("ingress.idempotency_secret", "", SECRETLESS)]


def cautions(config: Config) -> list[Problem]:
    """What works, and is seldom meant."""
    found = []
    if origins.NULL in config.server.allowed_origins:
        message = (
            "null allows every page, since any page can open a sandboxed frame, which has this origin; list "
            "the origins of your pages and apps instead"
        )
        found.append(Problem("server.allowed_origins", "", message))
    if config.server.access_log == "on" and config.server.log_level in ("warning", "error"):
        message = f"on has no effect: its lines are of level info, and server.log_level is {config.server.log_level}"
        found.append(Problem("server.access_log", "", message))
    return found


def untraced(environ: Mapping[str, str]) -> list[Problem]:
    """A variable that asks for traces, of which there will be none."""
    asked, why = tracing.asked_by(environ), tracing.problem(environ)
    return [] if asked is None or why is None else [Problem(asked, asked, why)]


def _server(config: Config) -> Iterator[tuple[str, str]]:
    for origin in config.server.allowed_origins:
        if origin != origins.ANY and origins.comparable(origin) is None:
            yield (
                "server.allowed_origins",
                f"{origin!r} is not an origin as browsers send it, so it would never match; {origins.advice(origin)}",
            )


def _auth(auth: Auth) -> Iterator[tuple[str, str]]:
    if auth.kind == "jwks" and not (auth.jwks_url or auth.identity_service_url):
        yield "auth.kind", "jwks needs auth.identity_service_url or auth.jwks_url"
    for key in ("identity_service_url", "jwks_url"):
        url = getattr(auth, key)
        if url is not None and not is_url(url, "http", "https"):
            yield f"auth.{key}", "is not a http:// or https:// URL"
    for algorithm in auth.algorithms:
        if algorithm not in SIGNATURES:
            yield "auth.algorithms", f"{algorithm!r} is not supported; choose from {', '.join(SIGNATURES)}"


def _ingress(config: Config) -> Iterator[tuple[str, str]]:
    topics = [config.ingress.topic, config.ingress.dead_letter_topic, config.push.topic, config.online.poke_topic]
    if len(set(topics)) < len(topics):
        yield (
            "ingress.topic",
            "ingress.topic, ingress.dead_letter_topic, push.topic and online.poke_topic must differ",
        )
    secret = config.ingress.idempotency_secret
    if secret is not None and is_guessable(secret.get_secret_value()):
        yield "ingress.idempotency_secret", GUESSABLE
    if config.ingress.kind != "pubsub":
        return
    if config.limits.envelope_bytes > PUBSUB_ENVELOPE_BYTES:
        yield (
            "limits.envelope_bytes",
            f"is more than the {PUBSUB_ENVELOPE_BYTES} that fit into a Pub/Sub message (10 MB, in base64)",
        )


def is_guessable(secret: str) -> bool:
    """Whether ``secret`` cannot be random enough. That another one is, nobody can tell."""
    return len(secret) < SECRET_CHARACTERS or len(set(secret)) < SECRET_VARIETY


def _online(online: Online) -> Iterator[tuple[str, str]]:
    if online.heartbeat_seconds >= online.lease_seconds:
        yield (
            "online.heartbeat_seconds",
            "must be less than online.lease_seconds, or leases expire between two heartbeats; use about a third of it",
        )
    if online.push_after_seconds >= online.sweep_after_seconds:
        yield "online.push_after_seconds", "must be less than online.sweep_after_seconds"
    if online.kind == "redis":
        try:
            redis_url.parse(online.url.get_secret_value() if online.url else "", online.mode)
        except ValueError as error:
            yield "online.url", str(error)


def _push(push: Push) -> Iterator[tuple[str, str]]:
    if push.kind == "embedded" and push.format != "command":
        # A setting that does nothing would be found out by the notification service.
        yield "push.format", f'{push.format!r} does not work with the embedded outbox; use "command"'


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """A process without ``HOME``, whose user has no passwd entry, has no home directory."""
    used = {
        "embedded.data_dir": config.embedded.data_dir if config.uses_data_dir else None,
        "google.credentials_file": config.google.credentials_file,
    }
    for key, path in used.items():
        if path is not None and is_homeless(path):
            yield key, f"is {path}, but there is no such home directory; write the full path, or set HOME"


def _google(config: Config) -> Iterator[tuple[str, str]]:
    named = [f'{role}.kind = "{kind}"' for role, kind in kinds(config).items() if kind in GOOGLE_KINDS]
    if named and not config.google.project:
        yield "google.project", f"is not set, but {named[0]} needs it; set it, or GOOGLE_CLOUD_PROJECT"
    if not DATABASE.fullmatch(config.google.firestore_database):
        yield (
            "google.firestore_database",
            "must be (default), or 4 to 63 characters of a-z, 0-9 and -, starting with a letter",
        )
    for key in ("firestore_endpoint", "pubsub_endpoint"):
        try:
            endpoints.service(getattr(config.google, key))
        except ValueError as error:
            yield f"google.{key}", str(error)
    if config.uses_firestore and config.limits.envelope_bytes > FIRESTORE_ENVELOPE_BYTES:
        yield (
            "limits.envelope_bytes",
            f"is more than the {FIRESTORE_ENVELOPE_BYTES} that fit into a Firestore document (1 MiB, in base64)",
        )


def is_url(text: str, *schemes: str) -> bool:
    """Whether ``text`` is an URL of one of ``schemes`` with a host and, if any, a port that can be."""
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
