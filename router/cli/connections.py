"""``router connections`` and ``router disconnect``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec import Struct

from router.cli.common import configured, now, timestamp, user
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import Table, counted, json_document, line, show, span
from router.clock import MICROSECONDS
from router.config import Config
from router.config.roles import Role
from router.core import disconnection
from router.core.connections import DISCONNECTED
from router.factory import Factory
from router.messages import Connection


class Held(Struct, frozen=True):
    """A WebSocket, as the online store knows it."""

    user: str
    id: str
    node: str
    """Which process holds it: the ``node`` of its log line ``ready``."""
    since: str
    lease_until: str
    """Until then it counts as open, unless its node renews it, which it does every ``online.heartbeat_seconds``."""


class Connected(Struct, frozen=True):
    """``connections --json``."""

    at: str
    users: int
    """How many users are connected; with USER, 1 or 0."""
    connections: int
    """How many connections they have."""
    shown: list[Held]
    """Those of the first users, all of each; the order of the users is the store's own."""
    more_users: int
    """How many users are not shown."""


class Disconnected(Struct, frozen=True):
    """``disconnect --json``."""

    user: str
    closed: list[Held]
    left: list[Held]
    """Connections whose nodes did not answer within 5 s."""


def connections(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="USER", help="Only this user's connections. Default: those of all users.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of users to show.")] = 50,
) -> None:
    """Show who is connected, to which node, since when.

    Also shows how long the lease of each connection lasts: its node renews it, and if the node dies, the connection
    counts as open until then. The command changes nothing, and works with the services running or stopped.

    Example:

      router connections
      router connections bob
      router connections --limit 1000 --json | jq -r '.shown[].node' | sort | uniq -c
    """
    config = configured(ctx)
    whose = user(name) if name is not None else None
    look_at(config, Role.ONLINE)
    found = asyncio.run(_connected(config, whose, limit))
    if as_json:
        json_document(found)
    else:
        _tell(found, whose)


def disconnect(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="USER", help="The user: bob, or urn:sm:user:bob.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what was closed as JSON.")] = False,
) -> None:
    """Close all connections of a user, on every node.

    The nodes close the WebSockets with code 4410. The user's hot mail then moves to cold, with push commands, as when
    the last connection of a user ends. Nothing keeps the client from connecting again at once, and most do: to keep
    somebody out, withdraw the key of their tokens, or have the identity service issue them no more.

    Exits with 75 if a node does not answer within 5 s. If it is dead, its connections end with their leases.

    Example:

      router disconnect bob
    """
    config, whose = configured(ctx), user(name)
    look_at(config, Role.ONLINE)
    done = asyncio.run(_disconnect(config, whose))
    if as_json:
        json_document(Disconnected(whose, _held(done.closed), _held(done.left)))
    else:
        _tell_closed(whose, done)
    if done.left:
        raise typer.Exit(Code.TEMPORARY)


async def _connected(config: Config, whose: str | None, limit: int) -> Connected:
    async with Factory(config, make=False) as factory:
        online = await factory.online_store()
        if whose is not None:
            own = await online.connections(whose)
            return Connected(timestamp(now()), int(bool(own)), len(own), _held(own), 0)
        shown: list[Connection] = []
        users = 0
        async for own in online.everyone():
            if users == limit:
                break
            shown += own
            users += 1
        present = await online.online()
        # The two looks are not of one moment.
        more = max(0, present.users - users) if users == limit else 0
        total = max(len(shown), present.messages) if more else len(shown)
        return Connected(timestamp(now()), users + more, total, _held(shown), more)


async def _disconnect(config: Config, whose: str) -> disconnection.Disconnection:
    async with Factory(config, make=False) as factory:
        online, pokes = await factory.online_store(), await factory.poke_bus()
        return await disconnection.disconnect(whose, online, pokes, factory.clock)


def _held(found: Sequence[Connection]) -> list[Held]:
    return [Held(c.user, c.id, c.node, timestamp(c.since), timestamp(c.lease_until)) for c in found]


def _tell(found: Connected, whose: str | None) -> None:
    title = f"{found.connections} connections of {found.users} users" if whose is None else f"Connections of {whose}"
    rows = [[held.user, held.node, held.since, held.lease_until, held.id] for held in found.shown]
    show([Table(title, ["user", "node", "since", "lease until", "id"], rows, "nobody is connected")])
    if found.more_users:
        line(f"{found.more_users} more users; see --limit")


def _tell_closed(whose: str, done: disconnection.Disconnection) -> None:
    if not (done.closed or done.left):
        line(f"{whose} is not connected")
    if done.closed:
        closed = counted(len(done.closed), "connection")
        line(f"closed {closed} of {whose} with {DISCONNECTED}; the client may connect again")
    for connection in done.left:
        lasts = span(max(0, connection.lease_until - now()) / MICROSECONDS)
        typer.echo(
            f"node {connection.node} does not answer; its connection {connection.id} counts as open for {lasts}, "
            "unless the node renews it",
            err=True,
        )
