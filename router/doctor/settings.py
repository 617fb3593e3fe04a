"""What the configuration alone says: combinations that start, but cause trouble later."""

from __future__ import annotations

from collections.abc import Iterator

from router.config import Config, redis_url
from router.config.rules import is_loopback
from router.findings import Finding, error, fine, note, warning


def look(config: Config, environ_emulators: list[str]) -> Iterator[Finding]:
    """Findings by the configuration; ``environ_emulators`` are the emulator variables that are set."""
    kinds = [config.ingress.kind, config.online.kind, config.cold.kind, config.push.kind]
    described = f"ingress {kinds[0]}, online {kinds[1]}, cold {kinds[2]}, push {kinds[3]}"
    yield _kinds(config, described)
    if config.ingress.kind != "embedded" and config.ingress.idempotency_secret is None:
        yield warning(
            "config.idempotency_secret",
            "it is not set, so each data directory has its own",
            "A send that is retried on another API node with the same Idempotency-Key becomes a second message.",
            "set ROUTER_INGRESS__IDEMPOTENCY_SECRET to 32 or more random characters, the same on all API nodes",
        )
    if config.push.kind == "none":
        why = "Users who are offline learn of mail only when they open the app."
        yield note("config.push", "push commands are discarded", why, 'set push.kind = "pubsub"')
    if config.online.kind == "redis":
        yield from reaching_redis(config)
    if environ_emulators and {"pubsub", "firestore"} & set(kinds):
        why = "An emulator keeps everything in memory and checks no permissions: a 202 promises nothing."
        yield warning(
            "config.emulators",
            f"emulators are configured: {' and '.join(environ_emulators)}",
            why,
            "unset them in production",
        )


def _kinds(config: Config, described: str) -> Finding:
    stores = [config.ingress.kind, config.online.kind, config.cold.kind]
    local = [name for name, kind in zip(("ingress", "online", "cold"), stores, strict=True) if kind == "embedded"]
    if local and len(local) < len(stores):
        why = f"A file on one machine holds {' and '.join(local)}, so all services must run on that machine."
        return note("config.backends", described, why, "to run on several machines, set other kinds for these too")
    return fine("config.backends", described)


def reaching_redis(config: Config) -> Iterator[Finding]:
    """Whether the Redis is reached in private, and with a password. The URL itself is never shown."""
    url = redis_url.parse(config.online.url.get_secret_value() if config.online.url else "", config.online.mode)
    if all(is_loopback(name) for name, _ in url.hosts):
        return
    if not url.tls:
        why = "The password, presence and sealed mail cross the network unencrypted."
        yield warning("config.redis_tls", "the connection to Redis has no TLS", why, "use rediss:// in online.url")
    if not url.password:
        why = "Anybody who reaches its port can see who is online and delete mail."
        fix = "set requirepass or an ACL user in Redis, and rediss://user:password@… in online.url"
        yield (warning if url.tls else error)("config.redis_password", "no password is set", why, fix)
