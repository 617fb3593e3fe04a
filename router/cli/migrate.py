"""``router migrate``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from msgspec import Struct, field

from router.cli.common import configured, look_at, user
from router.cli.exits import Code
from router.cli.output import json_document, line, progress
from router.config import Config
from router.config.places import Role, places
from router.errors import Unavailable
from router.factory import Factory
from router.interfaces import OnlineStore
from router.messages import MigrationResult
from router.reports import LogReports

PAGE = 500


class Report(Struct):
    """What ``--json`` prints."""

    dry_run: bool
    users: int = 0
    """Users whose hot queue was looked at."""
    moved: int = 0
    """Messages that are in cold now; with ``dry_run``, that would be."""
    dropped: int = 0
    """Ephemeral messages, which never enter cold."""
    busy: list[str] = field(default_factory=list)
    """Users on whom another migrator is at work."""
    online: list[str] = field(default_factory=list)
    """Users who came online in the meantime, and keep what is hot."""


class Choice(Struct, frozen=True):
    """Whose mail to move."""

    users: Sequence[str]
    stale: bool

    @property
    def online_too(self) -> bool:
        return not self.stale


def migrate(
    ctx: typer.Context,
    users: Annotated[list[str] | None, typer.Argument(metavar="USER", help="Move these, online or not.")] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Move users with hot mail and no live connection.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Move everyone, online or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Move hot queues to cold by hand.

    Name users, or choose --stale or --all. Safe beside running services and beside itself, and with the services
    down. Nothing is lost or reordered if it is interrupted: run it again, and it goes on with what is left.

    Exits with 75 where another migrator was at work on somebody; what that one leaves, the next run moves.

    Example:

      router migrate --stale --dry-run
      router migrate bob urn:sm:user:alice
      router migrate --all --json
    """
    named = [user(name) for name in users or []]
    if [bool(named), stale, everyone].count(True) != 1:
        raise typer.BadParameter("say whose mail to move: name users, or give --stale, or --all", param_hint="USER")
    choice = Choice(named, stale)
    config = configured(ctx)
    look_at(config, Role.ONLINE, Role.COLD)
    report = asyncio.run(_migrate(config, choice, dry_run=dry_run, quiet=as_json))
    if as_json:
        json_document(report)
    else:
        _tell(report)
    if report.busy:
        raise typer.Exit(Code.TEMPORARY)


async def _migrate(config: Config, choice: Choice, *, dry_run: bool, quiet: bool) -> Report:
    report = Report(dry_run)
    async with Factory(config, reports=LogReports(places(config))) as factory:
        online = await factory.online_store()
        if dry_run:
            async for _, hot in _chosen(online, choice):
                report.users += 1
                report.moved += hot
            return report
        queue = await factory.message_queue()
        total = (await online.totals(None)).messages
        with progress("moving to cold", "messages", total, quiet=quiet) as advance:
            async for name, _ in _chosen(online, choice):
                try:
                    done = await queue.migrate_hot_to_cold(name, online_too=choice.online_too, progress=advance)
                except Unavailable as error:
                    text = f"{error}; {report.moved} messages of {report.users} users are moved: run it again to go on"
                    raise Unavailable(text) from error
                report.users += 1
                report.moved += done.moved
                report.dropped += done.dropped
                _note(report, name, done.result)
    return report


async def _chosen(online: OnlineStore, choice: Choice) -> AsyncIterator[tuple[str, int]]:
    """(user, hot messages) of those whose mail is to move."""
    for name in dict.fromkeys(choice.users):
        yield name, (await online.totals(name)).messages
    after = ""
    while not choice.users and (page := await online.hot_users(after, PAGE)):
        for hot_user in page:
            if hot_user.hot and not (choice.stale and hot_user.live):
                yield hot_user.user, hot_user.hot
        after = page[-1].user


def _note(report: Report, name: str, result: MigrationResult) -> None:
    if result is MigrationResult.BUSY:
        report.busy.append(name)
    elif result is MigrationResult.ONLINE:
        report.online.append(name)


def _tell(report: Report) -> None:
    if report.dry_run:
        line(f"would move {_count(report.moved, 'message')} of {_count(report.users, 'user')}")
        return
    dropped = f", dropped {report.dropped} ephemeral" if report.dropped else ""
    line(f"moved {_count(report.moved, 'message')} of {_count(report.users, 'user')}{dropped}")
    if report.online:
        line(f"left to users who came online: {', '.join(report.online)}")
    if report.busy:
        line(f"another migrator is at work on: {', '.join(report.busy)}; run it again")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
