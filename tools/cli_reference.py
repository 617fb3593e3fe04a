"""``docs/cli.md``: every command, as its own help tells it, the exit codes, and the records of ``--json``."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from msgspec import Struct, structs

from router.bench import report
from router.cli import (
    config,
    connections,
    dead_letters,
    inspection,
    migrate,
    outbox,
    setup,
    token_check,
    top_view,
    trace_view,
)
from router.cli.app import COMMANDS, Entry, command, load
from router.cli.exits import Code
from router.config.sources import Problem
from router.core import status
from router.findings import Diagnosis, Finding

HEAD = """\
# Command line

`router --help` lists the commands, and `router COMMAND --help` explains each. This page repeats those texts and adds
what scripts need: exit codes and the records of `--json`. `make docs` writes it from the code.

## Output

* **Tables** are drawn on a terminal and are plain aligned text in a pipe. Those of `outbox` are always plain, since
  `--follow` may print rows for ever.
* **`--json`** prints records. Later versions may add fields, but never remove one or change its name or meaning.
* **Units:** sizes are in bytes, points in time are RFC 3339 in UTC, time spans are in seconds.
* **Payloads** are never printed, with three exceptions: `outbox --json` and `dead-letters --body` print sealed ones,
  and `listen` saves them.
* **Encoding:** JSON and TOML are printed in ASCII with escapes, whatever the locale. In other output, characters that
  the locale cannot show are escaped as in Python: `\\xfc`, `\\u2603`. In JSON, a byte of a file name that is not UTF-8
  is written as the six characters `\\udcff`, where the last two digits are the byte.
* **Closed streams:** using a closed standard input or output is an error (74). With standard error closed, commands run
  without messages.

`--install-completion` installs completion for bash, zsh, fish and PowerShell.
"""

RECORDS: dict[str, tuple[type[Struct], ...]] = {
    "token check": (token_check.Verdict, token_check.Key),
    "bench": (
        report.Report,
        report.Messages,
        report.Rates,
        report.Latency,
        report.Percentiles,
        report.Cold,
        report.Refusal,
        report.Promises,
    ),
    "migrate": (migrate.Report,),
    "top": (top_view.Top, status.Status, status.Counts, status.QueueStatus),
    "inspect-queue": (
        inspection.Overview,
        inspection.OldQueue,
        inspection.UserView,
        inspection.ConnectionView,
        inspection.MessageView,
        inspection.Share,
    ),
    "trace": (
        trace_view.TraceView,
        trace_view.TracedMessage,
        trace_view.EventView,
        trace_view.HoldView,
        trace_view.Silence,
        trace_view.Remembered,
    ),
    "connections": (connections.Connected, connections.Held),
    "disconnect": (connections.Disconnected, connections.Held),
    "outbox": (outbox.Command,),
    "dead-letters": (dead_letters.Letter,),
    "dead-letters replay": (dead_letters.Replay,),
    "dead-letters discard": (dead_letters.Discard,),
    "doctor": (Diagnosis, Finding),
    "config check": (config.Check, Problem),
    "config show": (config.Value,),
    "setup": (setup.Step,),
}
"""Command -> the records of its ``--json``."""
TYPES = {" | UnsetType": ", or absent", "Raw": "object", "Any": "any"}
PIPE = "\\|"


def cli_reference(root: Path) -> str:
    """The whole page."""
    del root
    whole = command()
    context = typer.Context(whole, info_name="router")
    parts = [HEAD, "## Global options\n", _options(whole, context), _exit_codes()]
    for entry in COMMANDS:
        parts += _command(entry, context)
    return "\n".join(parts).rstrip() + "\n"


def _exit_codes() -> str:
    rows = [f"| {code.value} | {code.name} | {code.meaning} |" for code in Code]
    return "\n".join(["## Exit codes", "", "| code | name | meaning |", "|---|---|---|", *rows, ""])


def _command(entry: Entry, parent: Any) -> Iterator[str]:
    loaded = load(entry)
    commands = getattr(loaded, "commands", None)
    if commands is None:
        yield from _section(entry.name, loaded, typer.Context(loaded, info_name=entry.name, parent=parent))
        return
    group = typer.Context(loaded, info_name=entry.name, parent=parent)
    if loaded.invoke_without_command:
        yield from _section(entry.name, loaded, group)
    for name, subcommand in commands.items():
        context = typer.Context(subcommand, info_name=name, parent=group)
        yield from _section(f"{entry.name} {name}", subcommand, context)


def _section(name: str, described: Any, context: Any) -> Iterator[str]:
    usage = described.get_usage(context).removeprefix("Usage: ")
    yield f"## `router {name}`\n"
    yield f"    {' '.join(usage.split())}\n"
    yield _prose(described.help or "")
    yield _options(described, context)
    for record in RECORDS.get(name, ()):
        yield _record(record)


def _prose(text: str) -> str:
    lines = []
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            block = textwrap.dedent(paragraph.removeprefix("\b\n")).strip()
            lines.append(f"```sh\n{block}\n```")
        else:
            lines.append(paragraph.strip())
    return "\n\n".join(lines) + "\n"


def _options(described: Any, context: Any) -> str:
    records = [parameter.get_help_record(context) for parameter in described.get_params(context)]
    rows = [
        f"| `{re.sub(r' <(str|list.*)>$', '', names)}` | {' '.join(text.split()).replace('|', PIPE)} |"
        for names, text in filter(None, records)
        if "--help" not in names
    ]
    return "\n".join(["| option | |", "|---|---|", *rows, ""]) if rows else ""


def _record(record: type[Struct]) -> str:
    """A table of the fields, from the source: docstrings of attributes are found nowhere else."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(tree, ast.ClassDef)
    summary = (ast.get_docstring(tree) or "").split("\n")[0]
    keys = {field.name: field.encode_name for field in structs.fields(record)}
    lines = [
        f"`{record.__name__}`{': ' + _code(summary) if summary else ''}",
        "",
        "| field | type | |",
        "|---|---|---|",
    ]
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            type_ = ast.unparse(statement.annotation)
            for python, words in TYPES.items():
                type_ = type_.replace(python, words)
            type_ = type_.replace("|", PIPE)
            key = keys[ast.unparse(statement.target)]
            lines.append(f"| `{key}` | {type_} | {_code(_docstring(following))} |")
    return "\n".join([*lines, ""])


def _docstring(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split())
    return ""


def _code(text: str) -> str:
    return text.replace("``", "`")
