"""``router conformance``."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.exits import Code
from router.cli.output import Table, json_document, line, on_terminal, progress, show

if TYPE_CHECKING:
    from router.conformance.moments import Moment
    from router.conformance.verdicts import Verdict, Verdicts


def conformance(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="The client: `receive`, `send` or `list` is added to it."),
    ] = None,
    moment: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Play this moment only. May be repeated. Default: all.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the moments, and play none.")] = False,
    patience: Annotated[
        float, typer.Option(min=1, max=600, metavar="SECONDS", help="How long to wait for what is expected.")
    ] = 30.0,
    jobs: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Play this number of moments at once.")] = 4,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Keep what each moment leaves in this new folder: what the client wrote, its stderr, its requests.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Play hard moments against a client, and judge it.

    Starts a router of its own, and runs COMMAND in an empty folder for each moment: an answer is lost, a page breaks
    off, a socket is closed, a token expires. Judges what the client saved, acknowledged and sent. docs/conformance.md
    says what COMMAND has to do, and has an example of 30 lines. Put -- before a COMMAND with options of its own.

    Exits with 0 if the client passes all moments, and with 13 if it fails one.

    Example:

      router conformance python client.py
      router conformance --moment answer-lost --dir seen -- node --experimental-websocket client.mjs
      router conformance --list
    """
    from router.conformance.kit import judge  # noqa: PLC0415 - brings httpx, websockets and cryptography
    from router.conformance.moments import MOMENTS  # noqa: PLC0415
    from router.conformance.verdicts import Verdicts  # noqa: PLC0415

    moments = _chosen(MOMENTS, moment or ())
    if listed:
        _list(moments, as_json=as_json)
        return
    if not command:
        raise typer.BadParameter("name the command that runs your client, or --list", param_hint="COMMAND")
    program = [_found(command[0]), *(_absolute(word) for word in command[1:])]
    with (
        _folder(directory) as folder,
        progress("playing", "moments", len(moments), quiet=as_json) as advance,
    ):

        def done(verdict: Verdict) -> None:
            del verdict
            if advance is not None:
                advance(1)

        verdicts = asyncio.run(judge(program, moments, folder, patience=patience, jobs=jobs, done=done))
    _show(Verdicts.of(verdicts), as_json=as_json)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(Code.CONFORMANCE)


def _chosen(moments: Sequence[Moment], names: Sequence[str]) -> list[Moment]:
    if unknown := [name for name in names if name not in {moment.name for moment in moments}]:
        raise typer.BadParameter(f"there is no moment {unknown[0]!r}; --list names them", param_hint="--moment")
    return [moment for moment in moments if not names or moment.name in names]


def _list(moments: Sequence[Moment], *, as_json: bool) -> None:
    rows = [[one.name, one.role.value, one.story, one.expected] for one in moments]
    columns = ["moment", "role", "what happens", "what is expected"]
    if as_json:
        keys = ("moment", "role", "story", "expected")
        json_document([dict(zip(keys, row, strict=True)) for row in rows])
    else:
        show([Table("Moments", columns, rows)])


def _found(program: str) -> str:
    """The program by its absolute path: it runs in other folders."""
    found = shutil.which(program)
    if found is None:
        raise typer.BadParameter(f"there is no program {program!r}", param_hint="COMMAND")
    return str(Path(found).absolute())


def _absolute(word: str) -> str:
    """A file of this folder by its absolute path; any other word as it is."""
    return str(Path(word).absolute()) if not word.startswith("-") and Path(word).is_file() else word


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        if directory.exists():
            raise typer.BadParameter(f"{directory} exists; name a new folder", param_hint="--dir")
        directory.mkdir(parents=True, mode=0o700)
        yield directory.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="router-conformance-") as temporary:
        yield Path(temporary)


def _show(verdicts: Verdicts, *, as_json: bool) -> None:
    if as_json:
        json_document(verdicts)
        return
    title = f"Conformance: {verdicts.passed} passed, {verdicts.failed} failed"
    if on_terminal():
        _draw(title, verdicts)
        return
    rows = [[_word(one), one.moment, f"{one.seconds:.1f} s"] for one in verdicts.moments]
    show([Table(title, ["", "moment", "took"], rows)])
    for one in verdicts.moments:
        if not one.passed:
            line(f"\n{one.moment}\n  what happened: {one.story}\n  expected: {one.expected}\n  seen: {one.seen}")


def _word(verdict: Verdict) -> str:
    return "passed" if verdict.passed else "FAILED"


def _draw(title: str, verdicts: Verdicts) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich is slow to import, and pipes do without
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("", "moment", "took", "what happened", "expected, and seen"):
        table.add_column(column, overflow="fold")
    for one in verdicts.moments:
        words = one.expected if one.passed else f"{one.expected}\nSeen: {one.seen}"
        mark = Text(_word(one), "green" if one.passed else "bold red")
        table.add_row(mark, *map(Text, (one.moment, f"{one.seconds:.1f} s", one.story, words)))
    Console().print(table)
