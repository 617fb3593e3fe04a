"""What ``send`` and ``listen`` share: where the router is, and whose token to show."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from router.cli.common import configured, now, user
from router.config import Config
from router.errors import ConfigError

TOKEN_VARIABLE = "ROUTER_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_SECONDS = 3600

AsUser = Annotated[str | None, typer.Option("--as", metavar="USER", help="Act as this user, by the embedded key.")]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Read the token from here; without it, from ROUTER_TOKEN.")
]
Url = Annotated[
    str | None, typer.Option(metavar="URL", envvar="ROUTER_URL", help="Where the API is; the configured one if unset.")
]


def api_url(config: Config, url: str | None) -> str:
    """The URL of the API."""
    return url or f"http://{config.server.host}:{config.server.api_port}"


def token_source(ctx: typer.Context, as_user: str | None, token_file: Path | None) -> Callable[[], str]:
    """What gives a token whenever one is needed; raises ``ConfigError`` where nobody said whose."""
    if as_user is not None:
        return _embedded(configured(ctx), user(as_user))
    if token_file is not None:
        return lambda: token_file.read_text().strip()
    if token := os.environ.get(TOKEN_VARIABLE):
        return lambda: token
    raise ConfigError(f"say who you are: --as USER with the embedded identity, --token-file, or {TOKEN_VARIABLE}")


def _embedded(config: Config, name: str) -> Callable[[], str]:
    if config.auth.kind != "embedded":
        raise ConfigError("--as works with the embedded identity only; get a token and name it with --token-file")
    from router.auth.embedded import EmbeddedKey  # noqa: PLC0415 - brings cryptography

    key = EmbeddedKey.open(config.embedded.data_dir)
    return lambda: key.sign(name, now(), TOKEN_SECONDS)
