"""``router setup``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from router.auth.embedded import EmbeddedKey, idempotency_secret
from router.backends.embedded.schema import FILE_NAME, prepare
from router.cli.common import configured
from router.cli.output import Table, json_document, show
from router.config import Config
from router.factory import Factory


class Step(Struct, frozen=True):
    """One thing that the backends need; ``setup --json`` prints a list of them."""

    what: str
    where: str
    state: str
    """``there``, ``made``, or ``missing`` with ``--dry-run``."""


class Need(Struct, frozen=True):
    """A file, and what makes it."""

    what: str
    path: Path
    make: Callable[[], object]


def setup(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Create what the backends need.

    The embedded backend needs a data directory, a database and keys; `router serve` makes them too, so this is for
    those who want to see them first. What is there is left as it is: run it as often as you like.

    Example:

      router setup --dry-run
      router --config router.toml setup
    """
    config = configured(ctx)
    asyncio.run(_refuse_unknown_kinds(config))
    needs = _needs(config)
    made = "missing" if dry_run else "made"
    steps = [Step(need.what, str(need.path), "there" if need.path.exists() else made) for need in needs]
    if not dry_run:
        for need in needs:
            need.make()
    if as_json:
        json_document(steps)
    else:
        rows = [[step.what, step.where, step.state] for step in steps]
        show([Table("Setup", ["what", "where", "state"], rows, "nothing is needed")])


def _needs(config: Config) -> list[Need]:
    data_dir = config.embedded.data_dir
    needs = []
    if "embedded" in _kinds(config):
        needs.append(Need("database", data_dir / FILE_NAME, lambda: prepare(data_dir)))
    if config.auth.kind == "embedded":
        needs.append(Need("token key", data_dir / "token-key.pem", lambda: EmbeddedKey.open(data_dir)))
    if config.ingress.idempotency_secret is None:
        needs.append(Need("idempotency key", data_dir / "idempotency-key", lambda: idempotency_secret(data_dir)))
    # Whatever goes into the directory makes it.
    return [Need("data directory", data_dir, lambda: None), *needs] if needs else []


def _kinds(config: Config) -> list[str]:
    return [config.ingress.kind, config.online.kind, config.cold.kind, config.push.kind]


async def _refuse_unknown_kinds(config: Config) -> None:
    """Raise ``ConfigError`` for a backend that this version lacks, before anything is made."""
    async with Factory(config) as factory:
        opened = [factory.ingress_producer, factory.online_store, factory.cold_queue, factory.push_notifier]
        for kind, component in zip(_kinds(config), opened, strict=True):
            if kind != "embedded":
                await component()
