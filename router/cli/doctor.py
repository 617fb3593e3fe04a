"""``router doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from router.cli.common import configured
from router.cli.exits import Code
from router.cli.output import json_document, line, on_terminal
from router.findings import Diagnosis, Finding, Severity

CODES = {
    Severity.FINE: Code.OK,
    Severity.NOTE: Code.OK,
    Severity.WARNING: Code.WARNINGS,
    Severity.ERROR: Code.ERRORS,
}
STYLES = {Severity.FINE: "green", Severity.NOTE: "cyan", Severity.WARNING: "yellow", Severity.ERROR: "bold red"}


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=600, metavar="SECONDS", help="Timeout of each check.")] = 15.0,
) -> None:
    """Check what production needs, and say how to fix what is wrong.

    Tries everything that the configuration names: it takes a probe message through the online store, writes and reads
    a probe document in the cold queue, sends a probe through a topic of its own, fetches the keys of the identity
    service, and compares clocks. It touches no real mail, and pokes and notifies nobody. The services may be running
    or stopped. Run it on the machines of the services, with their configuration.

    Exits with 0 if all is fine, with 10 if the worst finding is a warning, and with 11 if it is an error.

    Example:

      router --config router.toml doctor
      router doctor --json | jq '.findings[] | select(.severity == "error")'
    """
    config = configured(ctx)
    from router import logs  # noqa: PLC0415
    from router.doctor.checks import checks  # noqa: PLC0415 - a wrong configuration is told without loading them
    from router.doctor.runner import examine  # noqa: PLC0415

    logs.configure("auto", "error")  # what backends warn of when they are opened is among the findings
    diagnosis = Diagnosis.of(asyncio.run(examine(checks(config), timeout)))
    if as_json:
        json_document(diagnosis)
    elif on_terminal():
        _draw(diagnosis)
    else:
        line("\n".join(plain(diagnosis)))
    raise typer.Exit(CODES[diagnosis.worst])


def plain(diagnosis: Diagnosis) -> list[str]:
    """One line per finding, and two more if there is something to fix; the last line sums up."""
    lines = []
    for finding in diagnosis.findings:
        lines.append(f"{finding.severity.value.upper():8} {finding.check}: {finding.found}")
        lines += [f"{'':8} {text}" for text in _more(finding)]
    return [*lines, summary(diagnosis.findings)]


def summary(findings: Sequence[Finding]) -> str:
    """``2 errors, 1 warning, 9 fine``."""
    counts = [(severity, sum(f.severity is severity for f in findings)) for severity in reversed(Severity)]
    return ", ".join(f"{count} {_counted(severity, count)}" for severity, count in counts if count)


def _counted(severity: Severity, count: int) -> str:
    return severity.value if severity is Severity.FINE or count == 1 else f"{severity.value}s"


def _more(finding: Finding) -> list[str]:
    return [f"{word}: {text}" for word, text in (("why", finding.why), ("fix", finding.fix)) if text]


def _draw(diagnosis: Diagnosis) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich is slow to import, and pipes do without
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title=f"Doctor: {summary(diagnosis.findings)}", title_justify="left", box=SIMPLE_HEAD)
    for column in ("", "check", "what was found"):
        table.add_column(column, overflow="fold")
    for finding in diagnosis.findings:
        text = Text("\n".join([finding.found, *_more(finding)]))
        table.add_row(Text(finding.severity.value, STYLES[finding.severity]), Text(finding.check), text)
    Console().print(table)
