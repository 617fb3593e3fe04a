"""``router listen``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.client_options import AsUser, Teller, TokenFile, Url, api_url, signed_by, socket_url, token_source
from router.cli.common import configured
from router.cli.output import json_line, line

if TYPE_CHECKING:
    from router.client import Received


def _directory(text: str) -> Path:
    if not text:  # which would be the directory that one is in
        raise typer.BadParameter("is empty; name a directory (. is the current one)")
    return Path(text)


def listen(
    ctx: typer.Context,
    directory: Annotated[
        Path,
        typer.Option("--dir", metavar="DIR", help="Directory for the messages, each as <id>.json.", parser=_directory),
    ],
    once: Annotated[bool, typer.Option("--once", help="Receive the waiting messages, then end.")] = False,
    as_user: AsUser = None,
    token_file: TokenFile = None,
    url: Url = None,
    ws_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="URL of the WebSocket. Default: <URL>/connect with --url, else as configured."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each message.")] = False,
) -> None:
    """Receive messages: fetch, save, acknowledge.

    Each envelope is on disk before it is acknowledged, and is listed once, even if the command was interrupted and
    started again. If the router cannot be reached, the command keeps trying and says so on stderr, also when it is
    connected. Ctrl-C ends it.

    Example:

      router listen --as bob --dir inbox
    """

    def saved(received: Received, path: Path) -> None:
        entry = {"id": received.id, "bytes": len(bytes(received.envelope)), "path": str(path)}
        if as_json:
            json_line(entry)
        else:
            line(f"{received.id}  {entry['bytes']} B  {path}")
        sys.stdout.flush()

    config = configured(ctx)
    target = api_url(config, url)
    ws_target = socket_url(config, url, ws_url)
    with signed_by(ctx, as_user):
        asyncio.run(_listen(target, ws_target, token_source(ctx, as_user, token_file), directory, saved, once=once))


async def _listen(
    url: str,
    ws_url: str | None,
    token: Callable[[], str],
    directory: Path,
    saved: Callable[[Received, Path], None],
    *,
    once: bool,
) -> None:
    from router.client import RouterClient  # noqa: PLC0415 - brings httpx and websockets
    from router.client.saving import Directory  # noqa: PLC0415

    teller = Teller()
    async with RouterClient(url, token, ws_url=ws_url, trouble=teller.trouble) as client:
        save = Directory(directory, saved).save
        if once:
            await client.drain(save)
        else:
            await client.listen(save, connected=teller.connected)
