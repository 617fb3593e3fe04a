"""``router migrate``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer
from msgspec import Struct, field

from router.cli.common import configured, user
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import counted, json_document, line, progress
from router.config import Config
from router.config.roles import Role, kinds
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
    """Users whose hot queue was processed."""
    moved: int = 0
    """Messages that were moved to cold; with ``dry_run``, that would be."""
    dropped: int = 0
    """Ephemeral messages that were dropped, since they never go to cold."""
    busy: list[str] = field(default_factory=list)
    """Users whose mail another migrator is moving."""
    online: list[str] = field(default_factory=list)
    """Users who came online meanwhile; their mail stays hot."""


class Choice(Struct, frozen=True):
    """Whose mail to move."""

    users: Sequence[str]
    stale: bool

    @property
    def online_too(self) -> bool:
        return not self.stale


def migrate(
    ctx: typer.Context,
    users: Annotated[
        list[str] | None, typer.Argument(metavar="USER", help="Move the mail of these users, online or not.")
    ] = None,
    stale: Annotated[bool, typer.Option("--stale", help="Move the mail of users without a live connection.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Move all hot mail, of users online or not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would move.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Move hot queues to cold.

    Name users, or choose --stale or --all. You can run this beside running services, with the services stopped, and
    several times at once. If it is interrupted, nothing is lost or reordered: run it again to move the rest.

    Exits with 75 if another migrator was moving the mail of one of the users; run it again to move what is left.

    Example:

      router migrate --stale --dry-run
      router migrate bob urn:sm:user:alice
      router migrate --all --json
    """
    named = [user(name) for name in users or []]
    if [bool(named), stale, everyone].count(True) != 1:
        raise typer.BadParameter("choose whose mail to move: name users, or use --stale or --all", param_hint="USER")
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
    async with Factory(config, reports=LogReports(kinds(config)), make=False) as factory:
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
                    text = (
                        f"{error}; moved {report.moved} messages of {report.users} users; run it again to move the rest"
                    )
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
        line(f"would move {counted(report.moved, 'message')} of {counted(report.users, 'user')}")
        return
    dropped = f", dropped {report.dropped} ephemeral" if report.dropped else ""
    line(f"moved {counted(report.moved, 'message')} of {counted(report.users, 'user')}{dropped}")
    if report.online:
        line(f"left hot, since these users came online: {', '.join(report.online)}")
    if report.busy:
        line(f"another migrator is moving the mail of: {', '.join(report.busy)}; run it again")
