"""What ``send`` and ``listen`` share: where the router is, and whose token to show."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from router.cli.common import configured, now, user
from router.config import Config, address, with_ports
from router.config.combinations import is_url
from router.data_dir import SIGNING_KEY, key_file
from router.errors import ConfigError, Unauthorized

TOKEN_VARIABLE = "ROUTER_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_SECONDS = 3600

AsUser = Annotated[
    str | None, typer.Option("--as", metavar="USER", help="Act as this user, with a token signed by the embedded key.")
]
TokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the token. Default: the variable ROUTER_TOKEN.")
]
Url = Annotated[
    str | None,
    typer.Option(metavar="URL", envvar="ROUTER_URL", help="URL of the API. Default: as configured, on PORT if set."),
]


def api_url(config: Config, url: str | None) -> str:
    """The URL of the API. Without one, that of a service that runs in this environment: on ``PORT``, in an image."""
    if url:
        return _checked(url, "--url", "http")
    server = with_ports(config, "serve").server
    return address("http", server.host, server.api_port)


def socket_url(config: Config, url: str | None, ws_url: str | None) -> str | None:
    """The URL of the socket; ``None`` where it follows from the ``--url`` that was given."""
    if ws_url:
        return _checked(ws_url, "--ws-url", "ws")
    if url:
        return None
    server = with_ports(config, "serve").server
    return f"{address('ws', server.host, server.ws_port)}/connect"


def _checked(url: str, option: str, scheme: str) -> str:
    if not is_url(url, scheme, f"{scheme}s"):
        raise typer.BadParameter(f"{url!r} is not a {scheme}:// or {scheme}s:// URL", param_hint=option)
    return url


class Teller:
    """Tells a person on stderr how the connection fares: each kind of failure once, until it works again."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._connected = False

    def trouble(self, problem: str) -> None:
        """Something is being retried; ``problem`` begins with the URL."""
        kind = problem.partition(": ")[2]
        if kind not in self._told:
            self._told.add(kind)
            self._connected = False
            typer.echo(f"{problem}; trying again", err=True)

    def connected(self) -> None:
        """A socket is open."""
        if not self._connected:
            self._connected = True
            self._told.clear()
            typer.echo("connected; messages are saved as they arrive (Ctrl-C ends it)", err=True)


def token_source(ctx: typer.Context, as_user: str | None, token_file: Path | None) -> Callable[[], str]:
    """What gives a token whenever one is needed; raises ``Unauthorized`` where nobody said whose."""
    if as_user is not None and token_file is not None:
        raise typer.BadParameter("choose --as or --token-file", param_hint="--as")
    if as_user is not None:
        return _embedded(configured(ctx), user(as_user))
    if token_file is not None:
        return lambda: token_file.read_text(encoding="ascii", errors="replace").strip()
    if token := os.environ.get(TOKEN_VARIABLE):
        return lambda: token
    raise Unauthorized(f"no token: use --as USER (with the embedded key), --token-file FILE, or set {TOKEN_VARIABLE}")


@contextmanager
def signed_by(ctx: typer.Context, as_user: str | None) -> Iterator[None]:
    """Where a token of ``--as`` is refused in here, say which key has signed it: another user's router has another."""
    from router.client import Refused  # noqa: PLC0415 - brings httpx and websockets

    try:
        yield
    except Refused as error:
        if as_user is None or error.status != 401:
            raise
        where = configured(ctx).embedded.data_dir
        hint = f"--as signs with the key in {where}; is that the embedded.data_dir of this router?"
        raise Refused(error.status, f"{error.detail}; {hint}") from error


def _embedded(config: Config, name: str) -> Callable[[], str]:
    if not config.auth.signs_tokens:
        raise ConfigError(
            "--as works with the embedded key only; get a token from your identity service and use --token-file"
        )
    from router.auth.embedded import EmbeddedKey  # noqa: PLC0415 - brings cryptography

    directory = config.embedded.data_dir
    if not key_file(directory, SIGNING_KEY).exists():
        typer.echo(f"created a new key in {directory}; only a router with this embedded.data_dir trusts it", err=True)
    key = EmbeddedKey.open(directory)
    return lambda: key.sign(name, now(), TOKEN_SECONDS)
