"""Who is trusted: the embedded key, or the keys of the identity service."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from router.auth.jwks import JwksKeys
from router.config import Auth, Config
from router.config.combinations import is_loopback
from router.data_dir import SIGNING_KEY, key_file
from router.factory import Factory
from router.findings import Finding, error, fine, note, warning


async def look(config: Config) -> AsyncIterator[Finding]:
    """All that is to be said of ``auth``; raises ``Unavailable`` where the identity service gives no key set."""
    if config.auth.signs_tokens:
        yield embedded(config)
        return
    for finding in rules(config.auth):
        yield finding
    async with (
        Factory(config) as factory,
        JwksKeys(config.auth, factory.clock, factory.tasks, factory.chance) as source,
    ):
        for finding in judge(await source.candidates(None), config.auth.algorithms):
            yield finding


def embedded(config: Config) -> Finding:
    """The embedded identity is for users who can log in to this machine."""
    check, host = "auth.kind", config.server.host
    if not is_loopback(host):
        return error(
            check,
            f"tokens are signed by the embedded key, and server.host is {host}",
            "A service that listens beyond loopback does not start with the embedded key.",
            "set auth.identity_service_url or auth.jwks_url",
        )
    if "RS256" not in config.auth.algorithms:
        why = "The embedded key signs with RS256. Without it in auth.algorithms, no service starts."
        return error(check, "auth.algorithms does not allow the embedded key", why, "add RS256 to auth.algorithms")
    path = key_file(config.embedded.data_dir, SIGNING_KEY)
    if _readable_by_others(path):
        why = "Anybody who reads the key can sign tokens for every user."
        fix = f"rm {path}  # the next start creates a new key; until then, a running service trusts the old one"
        return warning(check, f"others can read {path}", why, fix)
    why = "`router token` issues the tokens, and no other machine trusts them."
    fix = "for production, set auth.identity_service_url"
    return note(check, "tokens are signed by the embedded key, for this machine only", why, fix)


def _readable_by_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)


def rules(auth: Auth) -> Iterator[Finding]:
    """What the settings alone say."""
    if auth.audience is None:
        why = "Tokens that the identity service issued for other services are accepted here."
        fix = "set auth.audience to the `aud` that the identity service uses"
        yield warning("auth.audience", "no audience is required", why, fix)
    if auth.issuer is None:
        why = "Every token that these keys signed is accepted, whichever issuer it names."
        fix = "set auth.issuer to the `iss` that the identity service uses"
        yield warning("auth.issuer", "no issuer is required", why, fix)
    for key in ("identity_service_url", "jwks_url"):
        url = getattr(auth, key)
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            why = "An attacker on the network can replace the keys and then act as any user."
            yield warning(f"auth.{key}", "the keys are fetched over plain http", why, f"use https:// in auth.{key}")


def judge(keys: Sequence[jwt.PyJWK], algorithms: Sequence[str]) -> Iterator[Finding]:
    """What the keys that were fetched are good for."""
    if not keys:
        why = "Every token is rejected, every WebSocket is closed, and no service becomes ready."
        fix = "publish a key for one of auth.algorithms at the identity service, with `use` sig or without `use`"
        yield error("auth.keys", f"the key set has no key for {', '.join(algorithms)}", why, fix)
        return
    fitting = Counter(key.algorithm_name for key in keys)
    count = len({id(key.Algorithm) if key.key_id is None else key.key_id for key in keys})
    listed = ", ".join(f"{algorithm} by {fitting[algorithm]}" for algorithm in algorithms if fitting[algorithm])
    yield fine("auth.keys", f"{count} usable {'key' if count == 1 else 'keys'}: {listed}")
    unused = [algorithm for algorithm in algorithms if not fitting[algorithm]]
    if unused:
        why = "Tokens with this signature are rejected, so allowing it has no use."
        fix = "remove it from auth.algorithms, or publish such a key"
        yield note("auth.algorithms", f"the key set has no key for {', '.join(unused)}", why, fix)
    if len(keys) > 1 and any(key.key_id is None for key in keys):
        why = "Tokens cannot name the key that signed them, so the router has to try each key."
        yield note(
            "auth.kid",
            "there are several keys, and some have no kid",
            why,
            "give each key a kid at the identity service",
        )
