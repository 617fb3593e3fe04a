"""``router trace``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from router.cli.common import configured, user
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import json_document, progress, show
from router.cli.trace_view import TraceView, trace_tables, trace_view
from router.config import Config
from router.config.roles import Role
from router.factory import Factory, needs_recipient


def trace(
    ctx: typer.Context,
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the message, as its sender got it with the 202.")],
    recipient: Annotated[
        str | None,
        typer.Option(
            "--user",
            metavar="USER",
            help="Its recipient. Needed where the online store is Firestore; spares Redis a look at all users.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what became of a message, and what holds it up.

    Looks for the id in all that the router keeps: the ingress, the record of the id, both queues, the dead letters and
    the outbox. Shows when the message was accepted and routed, where it is, whether it was announced, acknowledged or
    refused, and what it waits for. Never the payload, and never the sender, whom the router does not keep.

    The command changes nothing, and works with the services running or stopped. What a backend cannot tell is said:
    topics of Pub/Sub cannot be searched.

    Exits with 1 if nothing is known of the id, and says for how long it would be remembered; with 69 if nothing is
    known and a part of the router does not answer, which may know it.

    Example:

      router trace 0193b5a0-93f6-7c2e-8f7b-6f0c2d9b1a55
      router trace 0193b5a0-93f6-7c2e-8f7b-6f0c2d9b1a55 --user bob
      router trace 0193b5a0-93f6-7c2e-8f7b-6f0c2d9b1a55 --json | jq -r '.messages[].held_up_by[].cause'
    """
    config = configured(ctx)
    whose = user(recipient) if recipient is not None else None
    if whose is None and (why := needs_recipient(config)):
        raise typer.BadParameter(f"is missing: {why}", param_hint="--user")
    look_at(config, Role.INGRESS, Role.ONLINE, Role.COLD)
    view = asyncio.run(_trace(config, id_, whose, quiet=as_json))
    if as_json:
        json_document(view)
    else:
        show(trace_tables(view))
    if not view.known:
        raise typer.Exit(Code.UNAVAILABLE if view.no_answer else Code.FAILURE)


async def _trace(config: Config, id_: str, whose: str | None, *, quiet: bool) -> TraceView:
    async with Factory(config, make=False) as factory:
        with progress("looking for the recipient", "users", None, quiet=quiet or whose is not None) as advance:
            return await trace_view(factory, id_, whose, advance or (lambda _: None))
