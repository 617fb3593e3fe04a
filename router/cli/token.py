"""``router token``."""

from __future__ import annotations

from typing import Annotated

import typer

from router.auth.embedded import EmbeddedKey
from router.cli.common import configured, now, seconds, user
from router.cli.output import line
from router.errors import ConfigError

LONGEST_SECONDS = 36_500 * 86_400
"""A later ``exp`` may be taken for no time."""


def token(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="USER", help="The user: bob, or urn:sm:user:bob.")],
    ttl: Annotated[str, typer.Option(metavar="SPAN", help="How long the token is valid: 90s, 30m, 1h, 2d.")] = "1h",
    handle: Annotated[
        str | None,
        typer.Option(metavar="URN", help="Value of the handle claim, which the router prefers to sub."),
    ] = None,
) -> None:
    """Print a token for a user, signed by the embedded key.

    For tests on one machine. The key is in embedded.data_dir and is created when it is first needed. If auth.kind is
    jwks, your identity service issues the tokens, and this command refuses to.

    Example:

      TOKEN=$(router token alice --ttl 1d)
      curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8082/api/messages
    """
    config = configured(ctx)
    if not config.auth.signs_tokens:
        raise ConfigError(
            "auth.kind is jwks, so tokens come from your identity service; "
            "to use the embedded key, unset auth.identity_service_url and auth.jwks_url"
        )
    subject, lifetime = user(name), seconds(ttl)
    if not 1 <= lifetime <= LONGEST_SECONDS:
        raise typer.BadParameter("must be from 1s to 36500d", param_hint="--ttl")
    key = EmbeddedKey.open(config.embedded.data_dir)
    line(key.sign(subject, now(), lifetime, handle=user(handle) if handle else None))
