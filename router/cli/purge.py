"""``router purge``."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Annotated

import typer
from msgspec import Struct

from router.cli.common import configured, user
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import counted, json_document, line, progress
from router.config import Config
from router.config.roles import Role
from router.core.purge import Purged
from router.factory import Factory


class Report(Struct, frozen=True):
    """What ``--json`` prints: how much was deleted of what."""

    user: str
    complete: bool
    """False if something kept coming, or somebody worked on the user's mail all the time."""
    ingress: int
    """Messages that waited to be routed."""
    hot: int
    cold: int
    """Messages of either tier; one that a migrator was moving counts in both."""
    push_commands: int
    """Beside those that went with their messages."""
    dead_letters: int
    records: int
    """Of message ids, tombstones among them; also those of the messages that were deleted now."""
    connections: int
    beyond_reach: list[str]
    """What may be left where the router cannot look for it."""


def purge(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="USER", help="The user: bob, or urn:sm:user:bob.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was deleted as JSON.")] = False,
) -> None:
    """Delete everything of a user who leaves.

    Closes their connections and deletes their mail (in the ingress, hot and cold), push commands, dead letters, the
    records of their message ids, tombstones too, and what their queue was limited by. It cannot be undone. On a
    terminal it asks first, unless you give --yes; elsewhere it needs --yes.

    You can run this beside running services, and repeat it. It deletes until nothing has come for some seconds, since
    pipelines and migrators may still hold some of it. Let nobody send to the user, and withdraw their tokens, before
    you run it: the router knows no users, so whatever comes later is queued as for anybody.

    Exits with 75 if something keeps coming.

    Example:

      router purge bob
      router purge urn:sm:user:alice --yes --json
    """
    config, whose = configured(ctx), user(name)
    look_at(config, *Role)
    if not yes:
        _ask(config, whose)
    done, beyond = asyncio.run(_purge(config, whose, quiet=as_json))
    if as_json:
        counts = done.ingress, done.hot, done.cold, done.commands, done.dead_letters, done.records, done.connections
        json_document(Report(whose, done.complete, *counts, beyond))
    else:
        _tell(whose, done, beyond)
    if not done.complete:
        raise typer.Exit(Code.TEMPORARY)


def _ask(config: Config, whose: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter("is needed where nobody can be asked: it cannot be undone", param_hint="--yes")
    queued, connections = asyncio.run(_look(config, whose))
    what = f"{counted(queued, 'queued message')} and {counted(connections, 'live connection')}"
    if not typer.confirm(f"{whose} has {what}. Delete everything of this user for good?", err=True):
        typer.echo("nothing was deleted", err=True)
        raise typer.Exit(Code.FAILURE)


async def _look(config: Config, whose: str) -> tuple[int, int]:
    async with Factory(config, make=False) as factory:
        online, cold = await factory.online_store(), await factory.cold_queue()
        hot, stored = await online.totals(whose), await cold.totals(whose)
        return hot.messages + stored.messages, len(await online.connections(whose))


async def _purge(config: Config, whose: str, *, quiet: bool) -> tuple[Purged, list[str]]:
    async with Factory(config, make=False) as factory:
        beyond = [what for backend in factory.backends.used() for what in backend.beyond_reach()]
        shown = partial(progress, quiet=quiet)
        with shown("purging", "things", None) as advance:
            return await (await factory.purge()).purge(whose, advance), beyond


def _tell(whose: str, done: Purged, beyond: list[str]) -> None:
    queued = done.ingress + done.hot + done.cold
    line(
        f"deleted {counted(queued, 'queued message')} of {whose} "
        f"({done.ingress} not routed yet, {done.hot} hot, {done.cold} cold), {counted(done.commands, 'push command')}, "
        f"{counted(done.dead_letters, 'dead letter')}, {counted(done.records, 'record')} of message ids and "
        f"{counted(done.connections, 'connection')}"
    )
    for what in beyond:
        line(f"beyond reach, if there are any: {what}")
    if not done.complete:
        line(
            "something keeps coming: a sender, a client that connects again, or a service that is stuck. See "
            f"`router inspect-queue {whose}` and `router connections {whose}`, and run it again"
        )
