"""``router dead-letters``, ``router dead-letters replay`` and ``router dead-letters discard``."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated

import typer
from msgspec import UNSET, Struct, UnsetType

from router.cli.app import SETTINGS
from router.cli.common import age_seconds, configured, moment, now, timestamp
from router.cli.data_location import look_at
from router.cli.exits import Code
from router.cli.output import Table, json_document, json_line, line, progress, show, size, span
from router.config import Config
from router.config.roles import Role
from router.core import dead_letter_discard
from router.core.dead_letter_replay import REFUSED, Replayed
from router.dead_reasons import DeadReason
from router.factory import Factory
from router.interfaces import Receipt
from router.messages import DeadLetter


class Letter(Struct, frozen=True):
    """One line of ``--json``."""

    number: int | UnsetType
    """Increases with each dead letter; left out with Pub/Sub, which does not number them."""
    id: str
    recipient: str
    reason: str
    """A stable word: ``undecodable``, ``queue-full``, ``inbound-exhausted``, ``attempts-exhausted``, ``unstorable``,
    ``damaged``."""
    detail: str
    at: str
    """When it was refused, RFC 3339."""
    bytes: int
    attempts: int
    """How often the ingress had delivered it; 1 means once."""
    body: str | UnsetType = UNSET
    """The sealed body in base64, with ``--body`` only."""


app = typer.Typer(
    name="dead-letters",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings=SETTINGS,
)


class Replay(Struct):
    """What ``dead-letters replay --json`` prints."""

    dry_run: bool
    replayed: int
    """Dead letters that were published to the ingress again and removed; with ``dry_run``, that would be."""
    recipients: int
    """Number of their recipients."""
    passed_over: int
    """Dead letters with other reasons, or other ids than those on the command line."""
    remembered: int
    """Dead letters that are less than a day old: the online store may still remember their ids as gone."""
    unreadable: int
    """Dead letters without a complete envelope for their recipient: cut off, damaged, or written by other software."""
    unknown: list[str]
    """Ids on the command line that no dead letter has."""


class Discard(Struct):
    """What ``dead-letters discard --json`` prints."""

    dry_run: bool
    discarded: int
    """Dead letters that were removed; with ``dry_run``, that would be."""
    recipients: int
    """Number of their recipients; all undecodable ones together count as one more."""
    left: int
    """Dead letters that remain."""
    unknown: list[str]
    """Ids on the command line that no dead letter has."""


@app.callback(context_settings=SETTINGS)
def dead_letters(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    body: Annotated[bool, typer.Option("--body", help="With --json: include the sealed body, in base64.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most this many. Default: all.")] = None,
) -> None:
    """Show, replay or discard dead letters.

    A dead letter is a message that the router refused for good, with the reason: it cannot be decoded, the
    recipient's queue is full or gets too much, it failed too often, or it is damaged.

    With ingress.kind pubsub, they are in the subscription of the dead-letter topic, which only lends them: while the
    command runs, no other reader gets those that it has shown. At its end it hands them back. Pub/Sub may return less
    than everything; run it again.

    Example:

      router dead-letters
      router dead-letters --limit 20
      router dead-letters --json | jq -r .reason | sort | uniq -c
    """
    if ctx.invoked_subcommand is not None:
        return
    if body and not as_json:
        raise typer.BadParameter("needs --json", param_hint="--body")
    config = configured(ctx)
    look_at(config, Role.DEAD_LETTERS)
    asyncio.run(_dead_letters(config, limit or sys.maxsize, as_json=as_json, body=body))


@app.command(context_settings=SETTINGS)
def replay(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Only the dead letters of these message ids.")
    ] = None,
    reasons: Annotated[
        list[DeadReason] | None,
        typer.Option(
            "--reason",
            help="Only this reason; may be repeated. Default: queue-full and inbound-exhausted; with ids, all.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Route messages again that became dead letters.

    Each message is published to the ingress with its own id and gets a new place in the queue. Its dead letter is
    removed once the message is durable. You can run this beside running services and repeat it: an id that is
    already queued, or was acknowledged within the last day, is not routed twice. A message that is refused again
    becomes a dead letter again.

    Without --reason or ids, only messages that were too much for their recipient are replayed. Messages with other
    reasons may have had a place in a queue: the router remembers their ids as gone for a day, so they are left until
    then. Damaged messages are not what was sent: their recipients cannot open them, and after a replay nothing
    distinguishes them from intact ones.

    Exits with 75 if some dead letters are too young, and with 65 if one holds no envelope or an id is unknown. What
    is not replayed is left.

    Example:

      router dead-letters replay --dry-run
      router dead-letters replay 01KAVH1V5SJ1XPZ2S1C7JZ3Q4E
      router dead-letters replay --reason queue-full --json
    """
    if reasons and DeadReason.UNDECODABLE in reasons:
        raise typer.BadParameter("an undecodable one is not a message, and cannot be replayed", param_hint="--reason")
    config = configured(ctx)
    look_at(config, Role.DEAD_LETTERS)
    chosen = set(reasons or (DeadReason if ids else REFUSED))
    done = asyncio.run(_replay(config, chosen, ids or [], dry_run=dry_run, quiet=as_json))
    unknown = sorted(set(ids or ()) - done.found)
    if as_json:
        counts = done.replayed, len(done.recipients), done.passed_over, done.remembered, done.unreadable
        json_document(Replay(dry_run, *counts, unknown))
    else:
        _tell(done, dry_run=dry_run)
        _tell_unknown(unknown)
    if done.unreadable or done.remembered or unknown:
        raise typer.Exit(Code.DATA if done.unreadable or unknown else Code.TEMPORARY)


async def _replay(
    config: Config, reasons: set[DeadReason], ids: Sequence[str], *, dry_run: bool, quiet: bool
) -> Replayed:
    async with Factory(config, make=False) as factory:
        replayer, total = await factory.replayer(), await _count(factory)
        with progress("replaying", "dead letters", total, quiet=quiet) as advance:
            return await replayer.replay(reasons, ids, dry_run=dry_run, progress=advance)


@app.command(context_settings=SETTINGS)
def discard(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="The dead letters of these message ids.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All present dead letters.")] = False,
    reasons: Annotated[
        list[DeadReason] | None, typer.Option("--reason", help="Only this reason; may be repeated.")
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(
            "--before",
            metavar="TIME",
            parser=moment,
            help="Only those refused before this time: 2026-12-01 or 2026-12-01T08:30:00Z.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be discarded.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Delete dead letters.

    Choose them by ids, --reason and --before (a dead letter must match all that you give), or use --all. A dead
    letter is the last copy of a message that the router accepted: once it is deleted, its recipient never gets it.
    The command does not ask for confirmation; use --dry-run to see what it would delete.

    With ingress.kind pubsub, dead letters are deleted from the subscription of the dead-letter topic. You can run
    this beside running services.

    Exits with 65 if an id is unknown; the other dead letters are deleted nevertheless.

    Example:

      router dead-letters discard --all --dry-run
      router dead-letters discard --reason damaged --reason undecodable
      router dead-letters discard --before 2026-12-01 --json
      router dead-letters discard 01KAVH1V5SJ1XPZ2S1C7JZ3Q4E
    """
    config = configured(ctx)
    if not (ids or everything or reasons or before is not None):
        raise typer.BadParameter("choose dead letters: ids, --reason, --before, or --all")
    if everything and (ids or reasons or before is not None):
        raise typer.BadParameter("--all cannot be combined with ids, --reason or --before")
    look_at(config, Role.DEAD_LETTERS)
    unknown = set(ids or ())

    def chosen(letter: DeadLetter) -> bool:
        unknown.discard(letter.id)
        return (
            (not ids or letter.id in ids)
            and (not reasons or letter.reason in reasons)
            and (before is None or letter.at < before)
        )

    done = asyncio.run(_discard(config, chosen, dry_run=dry_run, quiet=as_json))
    if as_json:
        json_document(Discard(dry_run, done.discarded, len(done.recipients), done.left, sorted(unknown)))
    else:
        did = "would discard" if dry_run else "discarded"
        line(f"{did} {done.discarded} dead letters of {len(done.recipients)} recipients, left {done.left}")
        _tell_unknown(sorted(unknown))
    if unknown:
        raise typer.Exit(Code.DATA)


async def _discard(
    config: Config, chosen: Callable[[DeadLetter], bool], *, dry_run: bool, quiet: bool
) -> dead_letter_discard.Discarded:
    async with Factory(config, make=False) as factory:
        letters, total = await factory.dead_letter_queue(), await _count(factory)
        with progress("discarding", "dead letters", total, quiet=quiet) as advance:
            return await dead_letter_discard.discard(letters, chosen, dry_run=dry_run, progress=advance)


async def _count(factory: Factory) -> int | None:
    """How many letters there are; a topic does not say."""
    if factory.backends.ingress().letters_elsewhere():
        return None
    return await (await factory.dead_letter_box()).count()


def _tell(done: Replayed, *, dry_run: bool) -> None:
    did = "would replay" if dry_run else "replayed"
    line(f"{did} {done.replayed} dead letters of {len(done.recipients)} recipients")
    if done.passed_over:
        line(f"left {done.passed_over} with other reasons or ids; see --reason")
    if done.remembered:
        line(f"left {done.remembered} that are too young: try again a day after they were refused")
    if done.unreadable:
        line(f"left {done.unreadable} without a complete envelope for their recipient")


def _tell_unknown(ids: Sequence[str]) -> None:
    for id_ in ids:
        typer.echo(f"no dead letter has the id {id_}", err=True)


async def _dead_letters(config: Config, limit: int, *, as_json: bool, body: bool) -> None:
    rows: list[list[str]] = []
    async with Factory(config, make=False) as factory, aclosing(_all(factory)) as letters:
        async for receipt, letter in letters:
            if as_json:
                json_line(_letter(receipt, letter, body=body))
            else:
                age, bytes_ = span(age_seconds(letter.at, now())), size(len(letter.body))
                row = [letter.id, letter.recipient, letter.reason, letter.detail, age, bytes_, str(letter.attempts)]
                rows.append(row)
            limit -= 1
            if not limit:
                break
    if not as_json:
        show([Table("Dead letters", ["id", "recipient", "reason", "detail", "age", "size", "attempts"], rows)])


async def _all(factory: Factory) -> AsyncGenerator[tuple[Receipt, DeadLetter]]:
    async with aclosing((await factory.dead_letter_queue()).pages()) as pages:
        async for page in pages:
            for receipt, letter in page:
                yield receipt, letter


def _letter(receipt: Receipt, letter: DeadLetter, *, body: bool) -> Letter:
    return Letter(
        number=receipt if isinstance(receipt, int) else UNSET,
        id=letter.id,
        recipient=letter.recipient,
        reason=letter.reason,
        detail=letter.detail,
        at=timestamp(letter.at),
        bytes=len(letter.body),
        attempts=letter.attempts,
        body=base64.b64encode(letter.body).decode() if body else UNSET,
    )
