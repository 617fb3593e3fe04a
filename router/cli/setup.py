"""``router setup``."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import chain
from typing import Annotated

import typer
from msgspec import Struct

from router.auth.embedded import EmbeddedKey, idempotency_secret
from router.cli.common import configured
from router.cli.output import Table, json_document, line, show
from router.config import Config
from router.data_dir import IDEMPOTENCY_KEY, SIGNING_KEY, key_file
from router.errors import ConfigError, Forbidden
from router.factory import backends, check_machine
from router.needs import MISSING, NOT_IN_EMULATOR, THERE, Need, directory, file

MADE = "made"


class Step(Struct, frozen=True):
    """One thing that the backends need; ``setup --json`` prints a list of them."""

    what: str
    where: str
    state: str
    """``there``, ``made``, ``missing`` (with ``--dry-run``), ``not in an emulator``, or why it cannot be used or
    made."""
    commands: list[str] = []
    """Shell commands that create it without the router."""


def setup(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as JSON.")] = False,
) -> None:
    """Create what the backends need.

    For the embedded backend: the data directory, the database and the keys. `router serve` creates these too.

    For Pub/Sub: the topics and subscriptions, except those of pokes. For Firestore: the indexes and TTL policies of its
    collections, which Firestore builds in the background; the database has to exist. No service creates these.

    What exists is left unchanged, so you can run this as often as you like. For what is missing or cannot be made, this
    command also prints the commands that do the same. Exits with 78 if something cannot be used or made.

    Example:

      router setup --dry-run
      router --config router.toml setup
    """
    steps = asyncio.run(_setup(configured(ctx), dry_run=dry_run))
    if as_json:
        json_document(steps)
    else:
        rows = [[step.what, step.where, step.state] for step in steps]
        show([Table("Setup", ["what", "where", "state"], rows, "nothing is needed")])
        commands = [command for step in steps if step.state not in (THERE, MADE) for command in step.commands]
        if commands:
            line("\nCommands that do the same, for an account that has the rights:\n")
            for command in commands:
                line(command)
    if unusable := [step for step in steps if step.state not in (THERE, MADE, MISSING, NOT_IN_EMULATOR)]:
        raise ConfigError("; ".join(f"{step.what} {step.where} {step.state}" for step in unusable))


async def _setup(config: Config, *, dry_run: bool) -> list[Step]:
    check_machine(config)
    async with AsyncExitStack() as stack:
        # The servers first: what cannot be reached is refused before anything is made.
        needs = [await stack.enter_async_context(backend.needs()) for backend in reversed(backends(config).used())]
        found = [(need, await need.look()) for need in [*chain.from_iterable(needs), *_keys(config)]]
        steps = []
        for need, state in found:
            if state == MISSING and not dry_run:
                state = await _made(need)  # noqa: PLW2901 - what the step has come to
            steps.append(Step(need.what, need.where, state, list(need.commands)))
        return steps


async def _made(need: Need) -> str:
    """What making it has come to; where this account may not, the others are made nevertheless."""
    try:
        await need.make()
    except Forbidden as error:
        return str(error)
    return MADE


def _keys(config: Config) -> list[Need]:
    """Those that this router makes for itself, and the data directory where only they are in it."""
    data_dir = config.embedded.data_dir
    keys = []
    if config.auth.signs_tokens:
        keys.append(file("token key", key_file(data_dir, SIGNING_KEY), lambda: EmbeddedKey.open(data_dir)))
    if config.ingress.idempotency_secret is None:
        path = key_file(data_dir, IDEMPOTENCY_KEY)
        keys.append(file("idempotency key", path, lambda: idempotency_secret(data_dir)))
    return [directory(data_dir), *keys] if keys and not config.uses_database else keys
