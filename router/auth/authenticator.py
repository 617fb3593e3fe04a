"""The authenticator that the configuration asks for."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from router.auth.verifier import Authenticator
from router.clock import Clock, Tasks
from router.config import Config
from router.errors import ConfigError


@asynccontextmanager
async def open_authenticator(
    config: Config, clock: Clock, tasks: Tasks, chance: random.Random
) -> AsyncIterator[Authenticator]:
    """Opens at once, also while the identity service is down; raises ``ConfigError``."""
    # Each kind brings libraries that the other does without.
    auth = config.auth
    if auth.signs_tokens:
        from router.auth.embedded import ALGORITHM, EmbeddedKey  # noqa: PLC0415

        if ALGORITHM not in auth.algorithms:
            raise ConfigError(
                f"the embedded key signs with {ALGORITHM}; add it to auth.algorithms, or set auth.identity_service_url"
            )
        yield Authenticator(EmbeddedKey.open(config.embedded.data_dir), auth, clock)
        return
    if not (auth.jwks_url or auth.identity_service_url):
        raise ConfigError("auth.kind = jwks needs auth.identity_service_url or auth.jwks_url")
    from router.auth.jwks import JwksKeys  # noqa: PLC0415

    async with JwksKeys(auth, clock, tasks, chance) as keys:
        yield Authenticator(keys, auth, clock)
