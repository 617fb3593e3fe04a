"""``router backup`` and ``router restore``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from router.backups import Backup
from router.cli.common import age_seconds, configured, now, timestamp
from router.cli.output import counted, json_document, line, progress, size, span
from router.config import Config
from router.errors import ConfigError, InvalidInput
from router.factory import backends

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


class Report(Struct, frozen=True):
    """What ``--json`` prints."""

    file: str
    data_dir: str
    dry_run: bool
    """Nothing was written."""
    made_at: str
    """RFC 3339. The backup has what was accepted before, and lacks what was acknowledged before."""
    router: str
    """The version that made it."""
    schema: int
    """The version of its tables."""
    bytes: int
    ingress: int
    """Messages that wait to be routed."""
    hot: int
    cold: int
    outbox: int
    """Push commands that no notification service has taken."""
    dead_letters: int


def backup(
    ctx: typer.Context,
    file: File,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the backup holds as JSON.")] = False,
) -> None:
    """Write a backup of the embedded data to FILE.

    It has all mail that waits, dead letters, push commands and remembered ids, as they were at one moment. The services
    may keep running. FILE appears when it is whole and checked, and only its owner can read it. It holds no keys: the
    directory `keys` of the data directory belongs into your secret store.

    Example:

      router backup /backups/router-$(date +%F).backup
      router backup latest.backup --overwrite --json
    """
    config = _configured(ctx)
    if file.exists() and not overwrite:
        raise InvalidInput(f"{file} exists: name another file, or use --overwrite")
    made = backends(config).database().back_up(file, partial(progress, quiet=as_json))
    if as_json:
        json_document(_report(config, file, made, dry_run=False))
    else:
        line(f"backed up {_contents(made)} to {file} ({size(made.bytes)})")


def restore(
    ctx: typer.Context,
    file: File,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the database of the data directory, and all mail in it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check FILE, and say what it holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the backup holds as JSON.")] = False,
) -> None:
    """Restore the embedded data from a backup.

    Stop all services on the data directory first. FILE is checked before anything changes. Then it replaces the
    database in one step: a crash leaves the old state or the new one. Keys stay as they are.

    The restored state is as old as the backup. Mail that was accepted since is not in it and is lost. Mail that was
    acknowledged since is delivered again. What was purged or discarded since is back.

    Exits with 65 if FILE is damaged, no backup, or of a newer version, and with 78 if a process uses the data
    directory, or it has a database and --overwrite is not given.

    Example:

      router restore latest.backup --dry-run
      ROUTER_EMBEDDED__DATA_DIR=/var/lib/sealed-router router restore latest.backup
    """
    config = _configured(ctx)
    store = backends(config).database()
    shown = partial(progress, quiet=as_json)
    found = store.check_backup(file, shown) if dry_run else store.restore(file, shown, overwrite=overwrite)
    if as_json:
        json_document(_report(config, file, found, dry_run=dry_run))
        return
    when = f"{timestamp(found.made_at)}, {span(age_seconds(found.made_at, now()))} ago"
    if dry_run:
        line(f"{file} is intact and has {_contents(found)}, as of {when}")
    else:
        line(f"restored {_contents(found)} to {config.embedded.data_dir}, as of {when}")
    line("mail accepted since then is not in it; mail acknowledged since then is delivered again, and what was purged")
    line("or discarded since then is back")


def _configured(ctx: typer.Context) -> Config:
    config = configured(ctx)
    if not config.uses_database:
        raise ConfigError(
            "nothing of this configuration is kept in embedded.data_dir; back up Redis and Google's services by "
            "their own means (docs/operations.md#backups)"
        )
    return config


def _contents(found: Backup) -> str:
    waiting = found.ingress + found.hot + found.cold
    return (
        f"{counted(waiting, 'message')}, {counted(found.dead_letters, 'dead letter')} and "
        f"{counted(found.outbox, 'push command')}"
    )


def _report(config: Config, file: Path, found: Backup, *, dry_run: bool) -> Report:
    return Report(
        file=str(file),
        data_dir=str(config.embedded.data_dir),
        dry_run=dry_run,
        made_at=timestamp(found.made_at),
        router=found.router,
        schema=found.schema,
        bytes=found.bytes,
        ingress=found.ingress,
        hot=found.hot,
        cold=found.cold,
        outbox=found.outbox,
        dead_letters=found.dead_letters,
    )
