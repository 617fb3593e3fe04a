"""``router import-go``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from router.cli.common import configured
from router.cli.exits import Code
from router.cli.output import Table, counted, json_document, line, progress, show
from router.config import Config
from router.config.roles import kinds
from router.errors import ConfigError, Unavailable
from router.factory import Factory
from router.reports import LogReports

if TYPE_CHECKING:
    from router.go_import.importer import Importer

SHOWN = 20
"""Problems on a terminal; the others are counted."""


class Unimported(Struct, frozen=True):
    """A message that cannot be imported."""

    place: str
    """The path of its document in Firestore, or the key of its list in Redis."""
    why: str


class Report(Struct):
    """What ``--json`` prints."""

    dry_run: bool
    users: int
    """Users for whom mail waited that was not imported before."""
    imported: int
    """Messages that were imported by this run; with ``dry_run``, that would be."""
    before: int
    """Messages that an earlier run has imported."""
    ephemeral: int
    """Ephemeral messages that were left out: their time is over."""
    problems: list[Unimported]
    """Messages that cannot be imported, and why. They stay where they are."""
    held: list[str]
    """Users with more mail than their limits admit at once; run it again for the rest."""
    deleted: int
    """Messages that were deleted from the old stores, with ``--delete``."""


class Source(Struct, frozen=True):
    """Where the mail is that go-routing-service left."""

    project: str | None
    database: str
    cold: str
    hot: str
    pending: str
    redis: str | None


def import_go(
    ctx: typer.Context,
    project: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its Google Cloud project. Default: google.project.")
    ] = None,
    database: Annotated[str, typer.Option(metavar="NAME", help="Its Firestore database.")] = "(default)",
    cold: Annotated[
        str, typer.Option("--cold-collection", metavar="NAME", help="Its cold_queue_collection.")
    ] = "cold-queue",
    hot: Annotated[
        str, typer.Option("--hot-collection", metavar="NAME", help="Its hot_queue.firestore.main_collection_name.")
    ] = "hot-queue-main",
    pending: Annotated[
        str,
        typer.Option("--pending-collection", metavar="NAME", help="Its hot_queue.firestore.pending_collection_name."),
    ] = "hot-queue-pending",
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Its Redis, if its hot queue was there: redis://HOST:PORT for its REDIS_ADDR."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read everything and only say what would be done.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what is imported from the old stores, if all could be imported.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Import the mail that go-routing-service left.

    It reads Firestore and Redis; stop go-routing-service first. Each message that nobody has acknowledged is published
    to the ingress of this router under the id that it has, for each user in the order in which it was queued. What is
    imported is noted in the old Firestore, in the collection router-imported: you can interrupt the command and run it
    again, and nothing is imported twice. The old mail is left as it is, unless you say --delete.

    A dry run writes nothing. docs/from-go-routing-service.md says how to move a service step by step.

    Exits with 65 if messages cannot be imported, and with 75 if users have more mail than their limits admit at once.

    Example:

      router --config router.toml import-go --redis redis://10.0.0.3:6379 --dry-run
      router --config router.toml import-go --redis redis://10.0.0.3:6379
      router import-go --project my-project --json
    """
    if dry_run and delete:
        raise typer.BadParameter("cannot be combined with --dry-run", param_hint="--delete")
    source = Source(project, database, cold, hot, pending, redis)
    report = asyncio.run(_import(configured(ctx), source, dry_run=dry_run, delete=delete, quiet=as_json))
    if as_json:
        json_document(report)
    else:
        _tell(report, delete=delete)
    if report.problems or report.held:
        raise typer.Exit(Code.DATA if report.problems else Code.TEMPORARY)


async def _import(config: Config, source: Source, *, dry_run: bool, delete: bool, quiet: bool) -> Report:
    async with Factory(config, reports=LogReports(kinds(config))) as factory, AsyncExitStack() as stack:
        try:
            importer = await _importer(factory, source, stack, dry_run=dry_run)
        except ModuleNotFoundError as error:
            extras = "google,redis" if source.redis else "google"
            text = f"import-go needs {error.name}, which is missing: install the router with its extras {extras}"
            raise ConfigError(text) from error
        done = importer.done
        try:
            users = await importer.users()
            with progress("importing", "users", len(users), quiet=quiet) as advance:
                await importer.run(users, progress=advance)
            if delete and not (done.problems or done.held):
                with progress("deleting", "users", len(users), quiet=quiet) as advance:
                    await importer.delete(users, progress=advance)
        except Unavailable as error:
            text = f"{error}; imported {counted(done.imported, 'message')}; run it again to import the rest"
            raise Unavailable(text) from error
    problems = [Unimported(problem.place, problem.why) for problem in done.problems]
    return Report(
        dry_run, done.users, done.imported, done.before, done.ephemeral, problems, sorted(done.held), done.deleted
    )


async def _importer(factory: Factory, source: Source, stack: AsyncExitStack, *, dry_run: bool) -> Importer:
    """From the stores of ``source``, which ``stack`` closes. Raises ``ConfigError`` and ``ModuleNotFoundError``."""
    from router.go_import.firestore import Collections, GoFirestore  # noqa: PLC0415 - brings Google's libraries
    from router.go_import.importer import Importer  # noqa: PLC0415

    config, old, redis = factory.config, factory.config.google, None
    if not (source.project or old.project):
        raise ConfigError("--project is missing, and google.project is not set: name the project of the old Firestore")
    if source.redis is not None:
        from router.go_import.redis import GoRedis  # noqa: PLC0415 - brings redis-py

        redis = await stack.enter_async_context(GoRedis.open(source.redis))
    old = old.model_copy(update={"project": source.project or old.project, "firestore_database": source.database})
    collections = Collections(source.cold, source.hot, source.pending)
    firestore = await stack.enter_async_context(
        GoFirestore.open(config.model_copy(update={"google": old}), collections)
    )
    producer = None if dry_run else await factory.ingress_producer()
    return Importer(firestore, redis, producer, config.limits, factory.clock)


def _tell(report: Report, *, delete: bool) -> None:
    did = "would import" if report.dry_run else "imported"
    line(f"{did} {counted(report.imported, 'message')} of {counted(report.users, 'user')}")
    if report.before:
        line(f"imported before: {report.before}")
    if report.ephemeral:
        line(f"left out, since their time is over: {report.ephemeral} ephemeral")
    if report.deleted:
        line(f"deleted {counted(report.deleted, 'message')} from the old stores")
    if report.held:
        line(f"more mail than limits.queue_messages, queue_bytes or inbound_bytes admit: {', '.join(report.held)}")
        line("when they have fetched some of it, run it again for the rest; or raise these limits everywhere first")
    if report.problems:
        rows = [[problem.place, problem.why] for problem in report.problems[:SHOWN]]
        more = len(report.problems) - len(rows)
        show([Table("Cannot be imported" + (f" ({more} more: --json)" if more else ""), ["place", "why"], rows)])
    if delete and (report.problems or report.held):
        line("nothing is deleted, since not everything could be imported")
