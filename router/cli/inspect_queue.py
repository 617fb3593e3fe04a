"""``router inspect-queue``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from router.cli.common import configured, user
from router.cli.data_location import look_at
from router.cli.inspection import Overview, Share, UserView, overview, user_view
from router.cli.output import Table, json_document, json_line, on_terminal, rendered, show, size, span
from router.cli.trace_view import TraceView, looks_like_an_id, trace_tables, trace_view
from router.config import Config
from router.config.roles import Role
from router.factory import Factory

WATCH_SECONDS = 1.0
View = Overview | UserView | TraceView


def inspect_queue(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="USER",
            help="User whose queue to show, or id of a message to trace. Default: totals and the oldest queues.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of messages or queues to show.")] = 20,
) -> None:
    """Show what is queued and who is online.

    With USER: the user's connections, and the messages of both queues in the order of a fetch. Without: totals and
    the oldest queues. Payloads are never shown. The command changes nothing, and works with the services running or
    stopped. A user whom the router does not know has nothing queued.

    With the id of a message instead of USER: what became of it, as `router trace` shows it, unless a user of that name
    has mail or a connection. `urn:sm:user:` in front of it always names a user.

    With --json, or in a pipe, --watch prints one JSON object per line.

    Example:

      router inspect-queue
      router inspect-queue bob --limit 100
      router inspect-queue --json | jq .ingress.messages
    """
    config = configured(ctx)
    whose = user(name) if name is not None else None
    look_at(config, Role.INGRESS, Role.ONLINE, Role.COLD)

    async def look(factory: Factory) -> View:
        if whose is None:
            return await overview(factory, limit)
        found = await user_view(factory, whose, limit)
        if name is None or not looks_like_an_id(name) or found.messages or found.connections:
            return found
        return await trace_view(factory, name, None)

    if watch:
        asyncio.run(_watch(config, look, as_json=as_json))
    view = asyncio.run(_once(config, look))
    if as_json:
        json_document(view)
    else:
        show(tables(view))


async def _once(config: Config, look: Callable[[Factory], Awaitable[View]]) -> View:
    async with Factory(config, make=False) as factory:
        return await look(factory)


async def _watch(config: Config, look: Callable[[Factory], Awaitable[View]], *, as_json: bool) -> None:
    async with Factory(config, make=False) as factory:
        if not as_json and on_terminal():
            await _live(lambda: look(factory))
        while True:
            json_line(await look(factory))
            sys.stdout.flush()
            await asyncio.sleep(WATCH_SECONDS)


async def _live(look: Callable[[], Awaitable[View]]) -> None:
    from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

    with Live(auto_refresh=False, screen=True) as screen:
        while True:
            screen.update(rendered(tables(await look())), refresh=True)
            await asyncio.sleep(WATCH_SECONDS)


def tables(view: View) -> list[Table]:
    """What a person sees."""
    if isinstance(view, TraceView):
        return trace_tables(view)
    return _user_tables(view) if isinstance(view, UserView) else _overview_tables(view)


def _overview_tables(view: Overview) -> list[Table]:
    tiers = [("ingress", view.ingress), ("hot", view.hot), ("cold", view.cold)]
    totals = [_share_row(name, share) for name, share in tiers if share is not None]
    online = [
        ["online users", str(view.online_users)],
        ["connections", str(view.connections)],
        ["dead letters", "see their topic" if view.dead_letters is None else str(view.dead_letters)],
    ]
    oldest = [[q.user, q.tier, str(q.messages), size(q.bytes), span(q.age_seconds)] for q in view.oldest]
    return [
        Table("Queues", ["queue", "messages", "size", "oldest"], totals),
        Table("Now", ["what", "count"], online),
        Table("Oldest queues", ["user", "tier", "messages", "size", "age"], oldest),
    ]


def _share_row(name: str, share: Share) -> list[str]:
    return [name, str(share.messages), size(share.bytes), share.oldest_at or "-"]


def _user_tables(view: UserView) -> list[Table]:
    connections = [[c.id, c.node, c.since, span(c.lease_seconds)] for c in view.connections]
    messages = [
        [m.id, m.lane, m.tier, size(m.bytes), span(m.age_seconds), str(m.attempts), "yes" if m.announced else "no"]
        for m in view.messages
    ]
    more = " (the first; see --limit)" if view.more else ""
    return [
        Table(f"Connections of {view.user}", ["id", "node", "since", "lease left"], connections, "offline"),
        Table(
            "Queues",
            ["queue", "messages", "size", "oldest"],
            [_share_row("hot", view.hot), _share_row("cold", view.cold)],
        ),
        Table(
            f"Messages{more}",
            ["id", "lane", "tier", "size", "age", "attempts", "announced"],
            messages,
            "nothing queued",
        ),
    ]
