"""What the configuration alone says: combinations that start, but cause trouble later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from router import tracing
from router.config import Config
from router.config.combinations import secretless
from router.config.roles import Role, at_google, kinds
from router.factory import backends
from router.findings import Finding, fine, note, warning

STORES = (Role.INGRESS, Role.ONLINE, Role.COLD)


def traces(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Where the spans go, if they are asked for."""
    asked = tracing.asked_by(environ)
    if asked is None:
        return
    why = tracing.problem(environ)
    if why is None:
        yield fine("config.traces", f"spans go to {', '.join(tracing.exporters(environ))}, as {asked} asks")
    else:
        yield warning("config.traces", f"{asked} {why}", "There are no traces.", f"install it, or unset {asked}")


def look(config: Config, environ_emulators: Sequence[str]) -> Iterator[Finding]:
    """Findings by the configuration; ``environ_emulators`` are the emulator variables that are set."""
    named = backends(config)
    yield _kinds(config, [role for role in STORES if named.keeping(role).local])
    if secretless(config):
        yield warning(
            "config.idempotency_secret",
            "it is not set, so each data directory has its own",
            "A send that is retried on another API node with the same Idempotency-Key becomes a second message.",
            "set ROUTER_INGRESS__IDEMPOTENCY_SECRET to 32 or more random characters, the same on all API nodes",
        )
    for backend in named.used():
        yield from backend.settings()
    if environ_emulators and at_google(config):
        why = "An emulator keeps everything in memory and checks no permissions: a 202 promises nothing."
        yield warning(
            "config.emulators",
            f"emulators are configured: {' and '.join(environ_emulators)}",
            why,
            "unset them in production",
        )


def _kinds(config: Config, local: Sequence[Role]) -> Finding:
    described = ", ".join(f"{role} {kinds(config)[role]}" for role in (*STORES, Role.PUSH))
    if local and len(local) < len(STORES):
        why = f"A file on one machine holds {' and '.join(local)}, so all services must run on that machine."
        return note("config.backends", described, why, "to run on several machines, set other kinds for these too")
    return fine("config.backends", described)
