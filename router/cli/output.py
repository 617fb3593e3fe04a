"""Printing: tables on a terminal, aligned text in a pipe, JSON where asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_UNITS = ((1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB"))
_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"))


class Table(Struct, frozen=True):
    """Rows under a title; numbers are strings already."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "none"
    """What is said in place of no rows."""


def line(text: str) -> None:
    """One line on stdout, not flushed."""
    sys.stdout.write(f"{text}\n")


def json_line(value: object) -> None:
    """One JSON value on one line."""
    line(_ascii(_encoded(value)))


def json_document(value: object) -> None:
    """One JSON value, indented."""
    line(_ascii(msgspec.json.format(_encoded(value), indent=2)))


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_decodable(msgspec.to_builtins(value)))


def _decodable(value: Any) -> Any:
    """``value`` with the bytes of file names that are not UTF-8 written as ``\\udcff``: JSON holds text only."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_decodable(key): _decodable(item) for key, item in value.items()}
    return [_decodable(item) for item in value] if isinstance(value, list) else value


def _ascii(document: bytes) -> str:
    """JSON that every encoding of standard output can hold."""
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], document.decode())


def on_terminal() -> bool:
    return sys.stdout.isatty()


def show(tables: Sequence[Table]) -> None:
    """Print tables as fits the place they go to."""
    if on_terminal():
        from rich.console import Console  # noqa: PLC0415 - rich is slow to import, and pipes do without

        Console().print(rendered(tables))
    else:
        line("\n\n".join(aligned(table) for table in tables))


def aligned(table: Table) -> str:
    """Plain text: the title, the column names, the rows, with spaces between."""
    if not table.rows:
        return f"{table.title}: {table.empty}"
    rows = [[column.upper() for column in table.columns], *table.rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(table.columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([table.title, *lines])


def rendered(tables: Sequence[Table]) -> Any:
    """The tables for rich's console."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return Group(*(_rich(t) if t.rows else Text(f"{t.title}: {t.empty}") for t in tables))


def _rich(table: Table) -> RichTable:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = RichTable(title=table.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in table.columns:
        drawn.add_column(column, overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # As text: what is shown may hold brackets, which would be markup.
    return drawn


@contextmanager
def progress(
    title: str, unit: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """Long work: what is called with how much more is done, and draws a bar where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.progress import MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn(unit))
    # What goes to a terminal is printed above the bar; what goes to a pipe stays there.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=on_terminal())
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)


def counted(number: int, noun: str) -> str:
    """``1 message``, ``2 messages``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h``, ``2 d``."""
    for unit, name in _SPANS:
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """``512 B``, ``1.5 KiB``, ``2.0 MiB``, ``3.0 GiB``."""
    if count < 1024:
        return f"{count} B"
    unit = next((unit for unit in _UNITS if count < 1024 * unit[0]), _UNITS[-1])
    return f"{count / unit[0]:.1f} {unit[1]}"
