"""A run as a table on a terminal, as plain text in a pipe, as JSON, and as a table in Markdown."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.figures import Figure
from benchmarks.machine import Machine
from router.cli.output import Table, show

RESULTS = Path(__file__).parent / "results" / "run.json"
"""The committed run."""
PRODUCTION_RESULTS = RESULTS.with_name("production.json")
"""That of the production set-up."""
COLUMNS = ("what", "goal", "figure", "rounds", "met", "beside it")
_SMALL = 100


class Run(Struct):
    """Everything that a run found."""

    at: str
    """The day, in UTC."""
    seconds: float
    rounds: int
    quick: bool
    machine: Machine
    figures: list[Figure]
    load_average: float | None = None
    """Of the minute before it; what the machine did beside. ``None`` in runs that did not note it."""

    @property
    def missed(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.met is False]


def rows(figures: list[Figure]) -> list[list[str]]:
    """The cells under ``COLUMNS``."""
    return [
        [
            figure.what,
            _goal(figure),
            f"{_number(figure.value)} {figure.unit}",
            _rounds(figure),
            _met(figure),
            figure.note,
        ]
        for figure in figures
    ]


def _goal(figure: Figure) -> str:
    return "" if figure.goal is None else f"{figure.goal.relation} {_number(figure.goal.bound)}"


def _rounds(figure: Figure) -> str:
    if len(figure.values) == 1:
        return ""
    return f"{_number(min(figure.values))} to {_number(max(figure.values))}"


def _met(figure: Figure) -> str:
    return {None: "", True: "yes", False: "NO"}[figure.met]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= _SMALL else f"{value:.3g}"


def summary(run: Run) -> str:
    """One line on how it ended."""
    goals = [figure for figure in run.figures if figure.goal is not None]
    met = len(goals) - len(run.missed)
    return f"{met} of {len(goals)} goals met, in {run.seconds:.0f} s"


def print_run(run: Run) -> None:
    """Goal and figure side by side."""
    print_figures(describe(run.machine), run.figures)


def print_figures(title: str, figures: list[Figure]) -> None:
    show([Table(title, COLUMNS, rows(figures))])


def describe(machine: Machine) -> str:
    """One line on the machine."""
    return (
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_gib:g} GiB, {machine.syncs_per_second:,.0f} "
        f"fdatasync/s, {machine.system}, {machine.python}, SQLite {machine.sqlite}"
    )


def _beside(run: Run) -> str:
    return "" if run.load_average is None else f"load average {run.load_average:.1f} before it; "


def save(run: Run, path: Path) -> None:
    """Write the JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")


def load(path: Path) -> Run:
    """Read it again."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def markdown(run: Run) -> str:
    """The run for ``docs/benchmarks.md``."""
    lines = [
        f"{run.at}, {describe(run.machine)}; " + ", ".join(f"{n} {v}" for n, v in run.machine.libraries.items()) + ".",
        f"{run.rounds} rounds; {_beside(run)}{summary(run)}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(run.figures)),
    ]
    return "\n".join(lines) + "\n"
