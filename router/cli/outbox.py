"""``router outbox``."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from msgspec import Raw, Struct

from router.cli.common import age_seconds, configured, now, timestamp
from router.cli.data_location import look_at
from router.cli.output import json_line, line, size, span
from router.config import Config
from router.config.roles import Role
from router.factory import Factory

PAGE = 100
POLL_SECONDS = 0.2
COLUMNS = "{:>8}  {:<36}  {:<40}  {:>10}  {:>8}"


class Command(Struct, frozen=True):
    """One line of ``--json``."""

    number: int
    """Increases with each command; with Pub/Sub, which does not number them, its place in this output."""
    id: str
    """Id of the message."""
    recipient: str
    at: str
    """When it was published, RFC 3339."""
    command: Raw
    """The push command for a notification service, in the form that ``push.format`` names."""


def outbox(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line, with the commands.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new commands and print them, until Ctrl-C.")
    ] = False,
    take: Annotated[bool, typer.Option("--take", help="Remove each command after it is printed and flushed.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most this many. Default: all.")] = None,
    subscription: Annotated[
        str,
        typer.Option(
            "--subscription", metavar="NAME", help="With push.kind pubsub: the subscription of push.topic to look at."
        ),
    ] = "",
) -> None:
    """Show the push commands that wait in the outbox.

    With push.kind embedded, the router writes push commands to the outbox instead of sending them to a notification
    service. With --take, you can pipe them to such a service yourself: a command is removed after it was written to
    the pipe, so a command that the reader never got is printed again the next time.

    With push.kind pubsub, commands wait in the subscriptions of the notification service: name one. Pub/Sub only lends
    them: while the command runs, the service does not get those that it has shown, and each look counts as a
    delivery. At its end it hands back what it did not take. Pub/Sub may return less than everything, and of an ordered
    subscription only the first commands of each recipient.

    Example:

      router outbox
      router outbox --subscription notifications --limit 20
      router outbox --json --follow --take | ./notify
    """
    if subscription and follow and not take:
        raise typer.BadParameter("needs --take with --subscription: nobody else would get them", param_hint="--follow")
    config = configured(ctx)
    look_at(config, Role.PUSH)
    asyncio.run(_outbox(config, subscription, limit or sys.maxsize, as_json=as_json, follow=follow, take=take))


async def _outbox(config: Config, subscription: str, limit: int, *, as_json: bool, follow: bool, take: bool) -> None:
    async with Factory(config, make=False) as factory:
        commands = await factory.outbox(subscription)
        if not as_json:
            line(COLUMNS.format("NUMBER", "ID", "RECIPIENT", "AGE", "SIZE"))
        after = 0
        while limit:
            page = await commands.list(after, min(limit, PAGE))
            limit -= len(page)
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
