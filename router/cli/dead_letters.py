"""``router dead-letters``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from msgspec import UNSET, Struct, UnsetType

from router.cli.common import age_seconds, configured, look_at, now, timestamp
from router.cli.output import Table, json_line, show, size, span
from router.config import Config
from router.config.places import Role
from router.factory import Factory
from router.messages import DeadLetter

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


def dead_letters(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    body: Annotated[bool, typer.Option("--body", help="With --json: the sealed body too, as base64.")] = False,
) -> None:
    """Show the messages that were refused.

    What cannot be routed comes here with its reason: it cannot be decoded, the recipient's queue is full, its id
    belongs to another message, it failed too often, or it is damaged.

    Example:

      router dead-letters
      router dead-letters --json | jq -r .reason | sort | uniq -c
    """
    if body and not as_json:
        raise typer.BadParameter("needs --json", param_hint="--body")
    config = configured(ctx)
    if config.ingress.kind == "embedded":
        look_at(config, Role.DEAD_LETTERS)
    asyncio.run(_dead_letters(config, as_json=as_json, body=body))


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
