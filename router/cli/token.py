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
    name: Annotated[str, typer.Argument(metavar="USER", help="Who the token is for: bob, or urn:sm:user:bob.")],
    ttl: Annotated[str, typer.Option(metavar="SPAN", help="How long it is good for: 90s, 30m, 1h, 2d.")] = "1h",
    handle: Annotated[
        str | None,
        typer.Option(metavar="URN", help="Put this into the handle claim, which the router prefers to sub."),
    ] = None,
) -> None:
    """Print a token for a user, signed by the embedded key.

    For trying things on one machine. The key is in embedded.data_dir and is made when it is first needed. Where
    tokens come from an identity service (auth.kind is jwks), that service issues them, and this is refused.

    Example:

      TOKEN=$(router token alice --ttl 1d)
      curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8082/api/messages
    """
    config = configured(ctx)
    if config.auth.kind != "embedded":
        raise ConfigError(
            "auth.kind is jwks, so tokens come from your identity service; "
            "for tokens of the embedded key, unset auth.identity_service_url and auth.jwks_url"
        )
    subject, lifetime = user(name), seconds(ttl)
    if not 1 <= lifetime <= LONGEST_SECONDS:
        raise typer.BadParameter("a token is good for a second at least, 36500d at the most", param_hint="--ttl")
    key = EmbeddedKey.open(config.embedded.data_dir)
    line(key.sign(subject, now(), lifetime, handle=user(handle) if handle else None))
