"""The authenticator that the configuration asks for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.auth.verifier import Authenticator
from router.clock import Clock, Tasks
from router.config import Auth, Config
from router.errors import ConfigError


def auth_kind(auth: Auth) -> str:
    """``jwks`` where an URL is set, ``embedded`` elsewhere, unless the configuration says which."""
    return auth.kind or ("jwks" if auth.identity_service_url or auth.jwks_url else "embedded")


@asynccontextmanager
async def open_authenticator(
    config: Config, clock: Clock, tasks: Tasks, chance: random.Random
) -> AsyncIterator[Authenticator]:
    """Opens at once, also while the identity service is down; raises ``ConfigError``."""
    # Each kind brings libraries that the other does without.
    if auth_kind(config.auth) == "embedded":
        from router.auth.embedded import ALGORITHM, EmbeddedKey  # noqa: PLC0415

        if ALGORITHM not in config.auth.algorithms:
            raise ConfigError(f"the embedded identity signs with {ALGORITHM}; add it to auth.algorithms, or set an URL")
        yield Authenticator(EmbeddedKey.open(config.embedded.data_dir), config.auth, clock)
        return
    import httpx  # noqa: PLC0415

    from router.auth.jwks import JwksKeys  # noqa: PLC0415

    async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client:
        keys = JwksKeys(config.auth, client, clock, chance)
        refreshing = tasks.spawn(keys.run(), "jwks")
        try:
            yield Authenticator(keys, config.auth, clock)
        finally:
            refreshing.cancel()
