"""What the configuration alone says: combinations that start, and hurt later."""

from __future__ import annotations

from collections.abc import Iterator

from router.config import Config, redis_url
from router.config.rules import is_loopback
from router.doctor.findings import Finding, error, fine, note, warning


def look(config: Config, environ_emulators: list[str]) -> Iterator[Finding]:
    """Findings by the configuration; ``environ_emulators`` are the emulator variables that are set."""
    kinds = [config.ingress.kind, config.online.kind, config.cold.kind, config.push.kind]
    described = f"ingress {kinds[0]}, online {kinds[1]}, cold {kinds[2]}, push {kinds[3]}"
    yield _kinds(config, described)
    if config.ingress.kind != "embedded" and config.ingress.idempotency_secret is None:
        yield warning(
            "config.idempotency_secret",
            "it is not set, so that each data directory has one of its own",
            "A send that is repeated on another API node with the same Idempotency-Key becomes a second message.",
            "ROUTER_INGRESS__IDEMPOTENCY_SECRET, 32 or more random characters, the same on all API nodes",
        )
    if config.push.kind == "none":
        why = "Who is offline learns of mail only by opening the app."
        yield note("config.push", "push commands go nowhere", why, 'push.kind = "pubsub"')
    if config.online.kind == "redis":
        yield from reaching_redis(config)
    if environ_emulators and {"pubsub", "firestore"} & set(kinds):
        why = "An emulator keeps everything in memory and knows no permissions: a 202 promises nothing."
        yield warning("config.emulators", f"{' and '.join(environ_emulators)} set", why, "unset them in production")


def _kinds(config: Config, described: str) -> Finding:
    stores = [config.ingress.kind, config.online.kind, config.cold.kind]
    local = [name for name, kind in zip(("ingress", "online", "cold"), stores, strict=True) if kind == "embedded"]
    if local and len(local) < len(stores):
        why = f"The {' and '.join(local)} part is a file of one machine, so all services must run on that one."
        return note("config.backends", described, why, "other kinds for these too, to run on several machines")
    return fine("config.backends", described)


def reaching_redis(config: Config) -> Iterator[Finding]:
    """Whether the Redis is reached in private, and with a password. The URL itself is never shown."""
    url = redis_url.parse(config.online.url.get_secret_value() if config.online.url else "", config.online.mode)
    if all(is_loopback(name) for name, _ in url.hosts):
        return
    if not url.tls:
        why = "The password, presence and sealed mail pass the network in the clear."
        yield warning("config.redis_tls", "the Redis is reached without TLS", why, "rediss:// in online.url")
    if not url.password:
        why = "Whoever reaches its port reads who is online and deletes mail."
        mend = "requirepass or an ACL user at the Redis, and rediss://user:password@… in online.url"
        yield (warning if url.tls else error)("config.redis_password", "no password is set", why, mend)
