"""Who is trusted: the embedded key, or the keys of the identity service."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import jwt

from router.auth.jwks import JwksKeys
from router.config import Auth, Config
from router.config.rules import is_loopback
from router.data_dir import SIGNING_KEY, key_file
from router.doctor.findings import Finding, error, fine, note, warning
from router.factory import Factory


async def look(config: Config) -> AsyncIterator[Finding]:
    """All that is to be said of ``auth``; raises ``Unavailable`` where the identity service gives no key set."""
    if config.auth.kind == "embedded":
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
    """The embedded identity is for whoever can log in to this machine."""
    check, host = "auth.kind", config.server.host
    if not is_loopback(host):
        return error(
            check,
            f"the embedded identity, and server.host is {host}",
            "No service that listens beyond loopback starts with it: any local user may sign tokens.",
            "set auth.identity_service_url or auth.jwks_url",
        )
    if "RS256" not in config.auth.algorithms:
        why = "It signs with RS256, which auth.algorithms leaves out, so that no service starts."
        return error(check, "the embedded identity is not allowed", why, "add RS256 to auth.algorithms")
    path = key_file(config.embedded.data_dir, SIGNING_KEY)
    if _readable_by_others(path):
        why = "Whoever reads it can sign a token for anybody."
        mend = f"rm {path}  # a new key is made at the next start; until then a running service trusts the old one"
        return warning(check, f"others can read {path}", why, mend)
    why = "Tokens come from `router token`; no other machine trusts them."
    return note(check, "the embedded identity, for this machine only", why, "auth.identity_service_url, for production")


def _readable_by_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & 0o077)


def rules(auth: Auth) -> Iterator[Finding]:
    """What the settings alone say."""
    if auth.audience is None:
        why = "A token that the identity service made for another service opens mailboxes here."
        yield warning(
            "auth.audience", "no audience is required", why, "auth.audience, as the identity service sets `aud`"
        )
    if auth.issuer is None:
        why = "Any token that these keys have signed is believed, whoever it says made it."
        yield warning("auth.issuer", "no issuer is required", why, "auth.issuer, as the identity service sets `iss`")
    for key in ("identity_service_url", "jwks_url"):
        url = getattr(auth, key)
        parts = urlsplit(url or "")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            why = "Whoever is between can hand out keys of their own, and be anybody."
            yield warning(f"auth.{key}", "the keys come over plain http", why, f"https:// in auth.{key}")


def judge(keys: Sequence[jwt.PyJWK], algorithms: Sequence[str]) -> Iterator[Finding]:
    """What the keys that were fetched are good for."""
    if not keys:
        why = "All its keys count as withdrawn: every token is refused, every socket closed, and no service gets ready."
        mend = "publish a key for one of auth.algorithms at the identity service, with `use` sig or none"
        yield error("auth.keys", f"the key set names no key for {', '.join(algorithms)}", why, mend)
        return
    fitting = Counter(key.algorithm_name for key in keys)
    count = len({id(key.Algorithm) if key.key_id is None else key.key_id for key in keys})
    listed = ", ".join(f"{algorithm} by {fitting[algorithm]}" for algorithm in algorithms if fitting[algorithm])
    yield fine("auth.keys", f"{count} usable {'key' if count == 1 else 'keys'}: {listed}")
    unused = [algorithm for algorithm in algorithms if not fitting[algorithm]]
    if unused:
        why = "A token that is signed so is refused; one that never comes need not be allowed."
        mend = "leave it out of auth.algorithms, or publish such a key"
        yield note("auth.algorithms", f"no key fits {', '.join(unused)}", why, mend)
    if len(keys) > 1 and any(key.key_id is None for key in keys):
        why = "A token cannot name the key that signed it, so that each one has to be tried."
        yield note(
            "auth.kid", "several keys, and not all have a kid", why, "give each key a kid at the identity service"
        )
