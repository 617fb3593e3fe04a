"""``router outbox``."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from msgspec import Raw, Struct

from router.cli.common import age_seconds, configured, look_at, now, timestamp
from router.cli.output import json_line, line, size, span
from router.config import Config
from router.config.places import Role
from router.factory import Factory

PAGE = 100
POLL_SECONDS = 0.2
COLUMNS = "{:>8}  {:<36}  {:<40}  {:>10}  {:>8}"


class Command(Struct, frozen=True):
    """One line of ``--json``."""

    number: int
    """Rises with each command."""
    id: str
    """Of the message."""
    recipient: str
    at: str
    """RFC 3339: when it was published."""
    command: Raw
    """What goes to a notification service: ``{"recipientId": …, "envelope": {…}}``."""


def outbox(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, commands included.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new commands until Ctrl-C.")] = False,
    take: Annotated[bool, typer.Option("--take", help="Remove each command once it is printed and flushed.")] = False,
) -> None:
    """Show the push commands that wait to be taken.

    With push.kind embedded, the router leaves here what it would tell a notification service: somebody has mail.
    --take makes this the queue of such a service: a command is removed after the pipe has taken it, so one that the
    reader never got is there the next time.

    Example:

      router outbox
      router outbox --json --follow --take | ./notify
    """
    config = configured(ctx)
    if config.push.kind == "embedded" and not take:
        look_at(config, Role.PUSH)
    asyncio.run(_outbox(config, as_json=as_json, follow=follow, take=take))


async def _outbox(config: Config, *, as_json: bool, follow: bool, take: bool) -> None:
    async with Factory(config) as factory:
        commands = await factory.outbox()
        if not as_json:
            line(COLUMNS.format("NUMBER", "ID", "RECIPIENT", "AGE", "SIZE"))
        after = 0
        while True:
            page = await commands.list(after, PAGE)
            for entry in page:
                if as_json:
                    json_line(Command(entry.number, entry.id, entry.recipient, timestamp(entry.at), Raw(entry.command)))
                else:
                    age = span(age_seconds(entry.at, now()))
                    line(COLUMNS.format(entry.number, entry.id, entry.recipient, age, size(len(entry.command))))
            sys.stdout.flush()
            if page:
                after = page[-1].number
                if take:
                    await commands.remove([entry.number for entry in page])
            elif follow:
                await asyncio.sleep(POLL_SECONDS)
            else:
                return
