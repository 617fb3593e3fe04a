"""``router send``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from router import envelope
from router.cli.client_options import AsUser, Teller, TokenFile, Url, api_url, signed_by, token_source
from router.cli.common import configured, user
from router.cli.output import json_line, line, progress
from router.errors import InvalidEnvelope

if TYPE_CHECKING:
    from router.client import Outcome

TOGETHER = 256


def send(
    ctx: typer.Context,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="File with an envelope as JSON, or - for standard input.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="USER", help="Build an envelope for this user, instead of reading FILE.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="TEXT", help="With --to: the opaque data.")] = None,
    data_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="With --to: a file with the opaque data, or - for standard input."),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="With --to: the priority. 5 and above take the express lane.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="With --to: deliver only if the recipient is online now.")
    ] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Each FILE holds one envelope per line.")] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The Idempotency-Key. Default: a random one.")] = None,
    as_user: AsUser = None,
    token_file: TokenFile = None,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"id": …} for each message.')] = False,
) -> None:
    """Send messages.

    Sends the messages in the given order, up to 256 together, and prints the id of each that the router has stored.
    Temporary failures are retried for a minute with the same Idempotency-Key, so that nothing is sent twice. If the
    router refuses one, nothing behind it is sent, except what went together with one that is too large.

    Example:

      router send --as alice --to bob --data hello
      router send --as alice --to bob --data-file photo.sealed
      router send --as alice envelope.json
      seal.sh | router send --as alice --lines -
    """
    _check(files, to, data, data_file, built=priority is not None or ephemeral)
    if to is not None:
        content = _typed(data) if data is not None else _content(data_file or "-")
        envelopes = [_build(to, content, priority, ephemeral=ephemeral)]
    else:
        envelopes = [each for file in files or () for each in _read(file, lines=lines)]
    if key is not None and len(envelopes) != 1:
        raise typer.BadParameter("an Idempotency-Key is for one message only", param_hint="--key")
    show: Callable[[str], None] = (lambda id_: json_line({"id": id_})) if as_json else line
    target = api_url(configured(ctx), url)
    with signed_by(ctx, as_user):
        asyncio.run(_send(target, token_source(ctx, as_user, token_file), envelopes, key, show))


def _check(
    files: Sequence[str] | None, to: str | None, data: str | None, data_file: str | None, *, built: bool
) -> None:
    """Raise where options don't go together: none is to be ignored in silence."""
    if bool(files) == (to is not None):
        raise typer.BadParameter("give either a FILE with an envelope, or --to")
    if files and (built or data is not None or data_file is not None):
        raise typer.BadParameter("--data, --data-file, --priority and --ephemeral need --to")
    if data is not None and data_file is not None:
        raise typer.BadParameter("choose --data or --data-file", param_hint="--data-file")
    if to is not None and data is None and data_file is None:
        raise typer.BadParameter(
            "say what to send: --data TEXT, or --data-file FILE (- for standard input); "
            "for an empty message, use --data ''"
        )


def _typed(text: str) -> bytes:
    """An argument as UTF-8, with the bytes that were none as they came."""
    return text.encode(errors="surrogateescape")


def _build(to: str, data: bytes, priority: int | None, *, ephemeral: bool) -> bytes:
    members = {"recipientId": user(to), "encryptedData": data, "isEphemeral": ephemeral, "priority": priority}
    return msgspec.json.encode(members)


def _read(file: str, *, lines: bool) -> Sequence[bytes]:
    content = _content(file)
    return [part for part in content.splitlines() if part.strip()] if lines else [content]


def _content(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


async def _send(
    url: str, token: Callable[[], str], envelopes: Sequence[bytes], key: str | None, show: Callable[[str], None]
) -> None:
    from router.client import RouterClient  # noqa: PLC0415 - brings httpx and websockets

    async with RouterClient(url, token, trouble=Teller().trouble) as client:
        if len(envelopes) == 1:
            show(await client.send(envelopes[0], key))
            return
        with progress("sending", "messages", len(envelopes)) as advance:
            sent = 0
            for group in _groups(envelopes):
                outcomes = await client.send_batch(group)
                for outcome in outcomes:
                    if isinstance(outcome, str):
                        show(outcome)
                sys.stdout.flush()
                _raise_first(outcomes, sent, len(envelopes))
                sent += len(group)
                if advance is not None:
                    advance(len(group))


def _groups(envelopes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """What is sent together. One that is not an envelope goes alone, so that nothing behind it is sent."""
    group = list[bytes]()
    for each in envelopes:
        good = _is_good(each)
        if group and (len(group) == TOGETHER or not good):
            yield group
            group = []
        group.append(each)
        if not good:
            yield group
            group = []
    if group:
        yield group


def _is_good(body: bytes) -> bool:
    try:
        envelope.read(body, sys.maxsize)
    except InvalidEnvelope:
        return False
    return True


def _raise_first(outcomes: Sequence[Outcome], sent: int, count: int) -> None:
    """Raise the first error of ``outcomes``, of which the first is number ``sent`` + 1 of ``count`` messages."""
    from router.client import Refused  # noqa: PLC0415 - brings httpx and websockets

    failed = [(number, outcome) for number, outcome in enumerate(outcomes, sent + 1) if not isinstance(outcome, str)]
    if failed:
        _, error = failed[0]
        where = f"envelope {', '.join(str(number) for number, _ in failed)} of {count}"
        raise Refused(error.status, f"{where}: {error.detail}") if isinstance(error, Refused) else error
