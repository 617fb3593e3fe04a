"""``router dead-letters``, ``router dead-letters replay`` and ``router dead-letters discard``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import UNSET, Struct, UnsetType

from router.cli.app import SETTINGS
from router.cli.common import age_seconds, configured, look_at, moment, now, timestamp
from router.cli.exits import Code
from router.cli.output import Table, json_document, json_line, line, progress, show, size, span
from router.config import Config
from router.config.places import Role
from router.core import discarding
from router.core.replaying import REFUSED, Replayed
from router.factory import Factory
from router.messages import DeadLetter, DeadReason

PAGE = 100


class Letter(Struct, frozen=True):
    """One line of ``--json``."""

    number: int
    """Rises with each letter."""
    id: str
    recipient: str
    reason: str
    """A stable word: ``undecodable``, ``queue-full``, ``inbound-exhausted``, ``attempts-exhausted``, ``unstorable``,
    ``damaged``."""
    detail: str
    at: str
    """RFC 3339: when it was refused."""
    bytes: int
    attempts: int
    """Which delivery by the ingress it was; 1 is the first."""
    body: str | UnsetType = UNSET
    """Base64, with ``--body`` only."""


app = typer.Typer(
    name="dead-letters",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
    context_settings=SETTINGS,
)


class Reason(StrEnum):
    """Those that ``replay`` takes."""

    QUEUE_FULL = "queue-full"
    INBOUND_EXHAUSTED = "inbound-exhausted"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    UNSTORABLE = "unstorable"
    DAMAGED = "damaged"


class Replay(Struct):
    """What ``dead-letters replay --json`` prints."""

    dry_run: bool
    replayed: int
    """Published to the ingress again, and no dead letters any more; with ``dry_run``, that would be."""
    recipients: int
    """Whose they are."""
    passed_over: int
    """Of other reasons."""
    remembered: int
    """Too young: their ids are remembered as gone for a day."""
    unreadable: int
    """No whole envelopes for their recipients: cut off, damaged, or written by something else."""


class Discard(Struct):
    """What ``dead-letters discard --json`` prints."""

    dry_run: bool
    discarded: int
    """Gone for good; with ``dry_run``, that would be."""
    recipients: int
    """Whose they were; all that could not be decoded count as one more."""
    left: int
    """Dead letters that are still there."""
    unknown: list[str]
    """Ids that were named and that no dead letter has."""


@app.callback(context_settings=SETTINGS)
def dead_letters(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    body: Annotated[bool, typer.Option("--body", help="With --json: the sealed body too, as base64.")] = False,
) -> None:
    """Show the messages that were refused, replay or discard them.

    What cannot be routed comes here with its reason: it cannot be decoded, the recipient's queue is full, it failed
    too often, or it is damaged.

    Example:

      router dead-letters
      router dead-letters --json | jq -r .reason | sort | uniq -c
    """
    if ctx.invoked_subcommand is not None:
        return
    if body and not as_json:
        raise typer.BadParameter("needs --json", param_hint="--body")
    config = configured(ctx)
    if config.ingress.kind == "embedded":
        look_at(config, Role.DEAD_LETTERS)
    asyncio.run(_dead_letters(config, as_json=as_json, body=body))


@app.command(context_settings=SETTINGS)
def replay(
    ctx: typer.Context,
    reasons: Annotated[
        list[Reason] | None,
        typer.Option(
            "--reason", help="Of this reason; may be repeated. queue-full and inbound-exhausted if none is given."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Route messages again that were refused meanwhile.

    Each is published to the ingress under its own id, its place in the queue is new, and its letter is removed once
    that is durable. Safe beside running services, and as often as you like: an id that is queued already, or was
    acknowledged within a day, is not routed twice. Where it is still too much, the message is a dead letter again.

    Without --reason, that is what was too much for its recipient. Mail of other reasons may have had a place: its id
    is remembered as gone for a day, and it is left until then. What is damaged is not what was sent: its recipient
    cannot open it, and after a replay nothing tells it from whole mail.

    Exits with 75 where letters are too young, with 65 where one holds no envelope; both are left where they are.

    Example:

      router dead-letters replay --dry-run
      router dead-letters replay --reason queue-full --json
    """
    config = configured(ctx)
    look_at(config, Role.DEAD_LETTERS)
    chosen = {DeadReason(reason.value) for reason in reasons} if reasons else set(REFUSED)
    done = asyncio.run(_replay(config, chosen, dry_run=dry_run, quiet=as_json))
    if as_json:
        recipients = len(done.recipients)
        json_document(Replay(dry_run, done.replayed, recipients, done.passed_over, done.remembered, done.unreadable))
    else:
        _tell(done, dry_run=dry_run)
    if done.unreadable or done.remembered:
        raise typer.Exit(Code.DATA if done.unreadable else Code.TEMPORARY)


async def _replay(config: Config, reasons: set[DeadReason], *, dry_run: bool, quiet: bool) -> Replayed:
    async with Factory(config) as factory:
        replayer, total = await factory.replayer(), await _count(factory)
        with progress("replaying", "dead letters", total, quiet=quiet) as advance:
            return await replayer.replay(reasons, dry_run=dry_run, progress=advance)


@app.command(context_settings=SETTINGS)
def discard(
    ctx: typer.Context,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Those of the messages with these ids.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    reasons: Annotated[
        list[DeadReason] | None, typer.Option("--reason", help="Of this reason only; may be repeated.")
    ] = None,
    before: Annotated[
        int | None,
        typer.Option(
            "--before",
            metavar="TIME",
            parser=moment,
            help="Only what was refused before this, as 2026-12-01 or 2026-12-01T08:30:00Z.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be discarded.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """Remove dead letters for good.

    Say which: by ids, --reason and --before, where a letter must meet all that is given, or --all. A message was
    accepted before it was refused, and its letter is the last copy: what is discarded, its recipient never gets.
    Nothing is asked; --dry-run says what would go.

    Embedded or, with ingress.kind pubsub, from the subscription of the dead-letter topic. Safe beside running services.

    Exits with 65 where no letter has an id that was named; the others are discarded.

    Example:

      router dead-letters discard --all --dry-run
      router dead-letters discard --reason damaged --reason undecodable
      router dead-letters discard --before 2026-12-01 --json
      router dead-letters discard 01KAVH1V5SJ1XPZ2S1C7JZ3Q4E
    """
    config = configured(ctx)
    if not (ids or everything or reasons or before is not None):
        raise typer.BadParameter("say which: ids, --reason, --before, or --all")
    if everything and (ids or reasons or before is not None):
        raise typer.BadParameter("--all is all of them: leave out ids, --reason and --before")
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
        for id_ in sorted(unknown):
            typer.echo(f"no dead letter has the id {id_}", err=True)
    if unknown:
        raise typer.Exit(Code.DATA)


async def _discard(
    config: Config, chosen: Callable[[DeadLetter], bool], *, dry_run: bool, quiet: bool
) -> discarding.Discarded:
    async with Factory(config) as factory:
        letters, total = await factory.dead_letter_queue(), await _count(factory)
        with progress("discarding", "dead letters", total, quiet=quiet) as advance:
            return await discarding.discard(letters, chosen, dry_run=dry_run, progress=advance)


async def _count(factory: Factory) -> int | None:
    """How many letters there are; a topic does not say."""
    return await (await factory.dead_letter_box()).count() if factory.config.ingress.kind == "embedded" else None


def _tell(done: Replayed, *, dry_run: bool) -> None:
    did = "would replay" if dry_run else "replayed"
    line(f"{did} {done.replayed} dead letters of {len(done.recipients)} recipients")
    if done.passed_over:
        line(f"left {done.passed_over} of other reasons; see --reason")
    if done.remembered:
        line(f"left {done.remembered} whose ids are remembered as gone; try again a day after they were refused")
    if done.unreadable:
        line(f"left {done.unreadable} that hold no whole envelope for their recipients")


async def _dead_letters(config: Config, *, as_json: bool, body: bool) -> None:
    rows: list[list[str]] = []
    async for number, letter in _all(config):
        if as_json:
            json_line(_letter(number, letter, body=body))
        else:
            age, bytes_ = span(age_seconds(letter.at, now())), size(len(letter.body))
            rows.append([letter.id, letter.recipient, letter.reason, letter.detail, age, bytes_, str(letter.attempts)])
    if not as_json:
        show([Table("Dead letters", ["id", "recipient", "reason", "detail", "age", "size", "attempts"], rows)])


async def _all(config: Config) -> AsyncIterator[tuple[int, DeadLetter]]:
    async with Factory(config) as factory:
        letters = await factory.dead_letter_box()
        after = 0
        while page := await letters.list(after, PAGE):
            for number, letter in page:
                yield number, letter
                after = number


def _letter(number: int, letter: DeadLetter, *, body: bool) -> Letter:
    return Letter(
        number=number,
        id=letter.id,
        recipient=letter.recipient,
        reason=letter.reason,
        detail=letter.detail,
        at=timestamp(letter.at),
        bytes=len(letter.body),
        attempts=letter.attempts,
        body=base64.b64encode(letter.body).decode() if body else UNSET,
    )
