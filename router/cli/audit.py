"""``router audit``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from msgspec import Struct

from router.books import Books, Unbalanced
from router.cli.common import configured, now, seconds, timestamp
from router.cli.counted import Counted, Counters
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import Table, json_document, show
from router.config import Config, address
from router.config.roles import Role
from router.factory import Factory


class AuditView(Struct, frozen=True):
    """The books, as the command shows them."""

    at: str
    seconds: int | None
    """Of which span; ``None``: of all time."""
    accepted: int
    acknowledged: int
    queued: int
    expired: int
    dropped: int
    dead: int
    missing: int
    in_flight: int
    """How many messages may have moved while they were counted."""
    unbalanced: list[Unbalanced]
    notes: list[str]

    @property
    def balances(self) -> bool:
        return self.missing <= self.in_flight and not self.unbalanced


def audit(
    ctx: typer.Context,
    duration: Annotated[
        str,
        typer.Option("--for", metavar="SPAN", help="Not on one machine: how long to count, for example 90s or 30m."),
    ] = "1m",
    admin: Annotated[
        list[str] | None,
        typer.Option(
            "--admin",
            metavar="URL",
            help="Admin port of a process; name each process. Default: that of the configuration. Not on one machine.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that every accepted message is accounted for.

    The books balance if accepted = acknowledged + queued + expired + dropped + dead.

    Where the embedded store keeps everything, the books are exact and of all time: each transaction that moves a
    message writes them, and this compares them with what the queues really hold, for each recipient.

    Elsewhere the command counts for a minute: what the metrics of all processes say at its beginning and at its end,
    and what the queues hold then. Name the admin port of every process, or messages seem to be missing.

    Exits with 12 if messages are missing. The command changes nothing, and works with the services running.

    Example:

      router audit
      router audit --json | jq .missing
      router --config router.toml audit --admin http://api:8084 --admin http://ws:8085 --admin http://process:8086
    """
    config, span = configured(ctx), seconds(duration)
    look_at(config, Role.INGRESS, Role.ONLINE, Role.COLD)
    view = asyncio.run(_audit(config, span, admin or [_own(config)]))
    if as_json:
        json_document(view)
    else:
        show(tables(view))
    raise typer.Exit(Code.OK if view.balances else Code.BROKEN_PROMISE)


def _own(config: Config) -> str:
    return address("http", config.server.admin_host, config.server.admin_port)


async def _audit(config: Config, span: int, admin: list[str]) -> AuditView:
    async with Factory(config, make=False) as factory:
        auditor = await factory.auditor()
        if auditor is not None:
            books, unbalanced = await auditor.books()
            return _view(books, None, 0, unbalanced, [])
        counters = Counters(await factory.online_store(), await factory.cold_queue(), admin)
        before = await counters.read()
        await factory.clock.sleep(span)
        after = await counters.read()
        return _view(after.since(before), span, before.in_flight + after.in_flight, [], _notes(before, after))


def _notes(before: Counted, after: Counted) -> list[str]:
    missing = after.since(before).missing
    notes = ["it begins when a message is routed: what waits in the ingress is not counted"]
    if after.restarted(before):
        notes.append("a process was started meanwhile, so what it had counted is gone: repeat this")
    if missing < -(before.in_flight + after.in_flight):
        notes.append("more has left than came: clients have acknowledged messages twice, or ids that they do not have")
    return notes


def _view(books: Books, span: int | None, in_flight: int, unbalanced: list[Unbalanced], notes: list[str]) -> AuditView:
    return AuditView(
        timestamp(now()),
        span,
        books.accepted,
        books.acknowledged,
        books.queued,
        books.expired,
        books.dropped,
        books.dead,
        books.missing,
        in_flight,
        unbalanced,
        notes,
    )


def tables(view: AuditView) -> list[Table]:
    """What a person sees."""
    of = "of all time" if view.seconds is None else f"of {view.seconds} s"
    rows = [
        ["accepted", str(view.accepted)],
        *([f"- {name}", str(getattr(view, name))] for name in ("acknowledged", "queued", "expired", "dropped", "dead")),
        ["= missing", f"{view.missing}" + (f" (up to {view.in_flight} in flight)" if view.in_flight else "")],
    ]
    found = [Table(f"The books {of} {'balance' if view.balances else 'DO NOT BALANCE'}", ["messages", "count"], rows)]
    if view.unbalanced:
        users = [[one.user, str(one.kept), str(one.held)] for one in view.unbalanced]
        found.append(Table("Where they do not", ["user", "should be queued", "are queued"], users))
    if view.notes:
        found.append(Table("Notes", ["note"], [[note] for note in view.notes]))
    return found
