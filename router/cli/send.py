"""``router send``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from router.cli.clients import AsUser, TokenFile, Url, api_url, token_source
from router.cli.common import configured, user
from router.cli.output import json_line, line


def send(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="The envelope as JSON, or - for standard input.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="USER", help="Build an envelope for this user instead.")] = None,
    data: Annotated[str, typer.Option(metavar="TEXT", help="The opaque data of a built envelope.")] = "",
    priority: Annotated[int | None, typer.Option(help="5 and above take the express lane.")] = None,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Deliver now or never.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="FILE holds many envelopes, one a line.")] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The Idempotency-Key; a new one if unset.")] = None,
    as_user: AsUser = None,
    token_file: TokenFile = None,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"id": …} for each message.')] = False,
) -> None:
    """Send a message.

    Prints the id of each message once the router has it safe. Failures that may pass are retried under one
    Idempotency-Key, so that nothing is sent twice.

    Example:

      router send --as alice --to bob --data hello
      router send --as alice envelope.json
      seal.sh | router send --as alice --lines -
    """
    if (file is None) == (to is None):
        raise typer.BadParameter("name a FILE with an envelope, or build one with --to")
    if key is not None and lines:
        raise typer.BadParameter("one key is for one message; it does not go with --lines")
    envelopes = (
        _read(file, lines=lines) if file is not None else [_build(to or "", data, priority, ephemeral=ephemeral)]
    )
    show: Callable[[str], None] = (lambda id_: json_line({"id": id_})) if as_json else line
    target = api_url(configured(ctx), url)
    asyncio.run(_send(target, token_source(ctx, as_user, token_file), envelopes, key, show))


def _build(to: str, data: str, priority: int | None, *, ephemeral: bool) -> bytes:
    envelope = {"recipientId": user(to), "encryptedData": data.encode(), "isEphemeral": ephemeral, "priority": priority}
    return msgspec.json.encode(envelope)


def _read(file: str, *, lines: bool) -> Iterable[bytes]:
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return [part for part in content.splitlines() if part.strip()] if lines else [content]


async def _send(
    url: str, token: Callable[[], str], envelopes: Iterable[bytes], key: str | None, show: Callable[[str], None]
) -> None:
    from router.client import RouterClient  # noqa: PLC0415 - brings httpx and websockets

    async with RouterClient(url, token) as client:
        for envelope in envelopes:
            show(await client.send(envelope, key))
            sys.stdout.flush()
