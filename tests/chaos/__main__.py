"""``python -m tests.chaos``: the router under faults, embedded or with real servers, and what clients saw judged.

Exit code 0: every promise was kept; 1: one was broken; 2: it could not run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from router.cli.output import show
from tests.chaos import page, report
from tests.chaos.run import Options, Outcome, run
from tests.chaos.topologies import TOPOLOGIES, broken
from tests.sim.history import words
from tests.sim.mutations import MUTANTS
from tests.support.mutation import Mutant
from tests.support.servers import MissingServer, end_when_told

BUILD = Path("build")
"""On the disk of the checkout: the temporary directory of the system may be no disk at all."""


MUTATIONS = "tests/sim/mutations.py"
NOT_RUN = (MissingServer, AssertionError, OSError)
"""A server is missing, or something did not start or did not end."""


def main(arguments: Sequence[str]) -> int:
    """See the exit codes above."""
    options = _options(arguments)
    end_when_told()
    machine = report.machine()
    try:
        outcome = _run(options)
    except KeyboardInterrupt:
        return 130
    except (*NOT_RUN, ExceptionGroup) as error:
        reasons = _leaves(error)
        if not all(isinstance(reason, NOT_RUN) for reason in reasons):
            raise
        sys.stderr.writelines(f"could not run: {str(reason) or type(reason).__name__}\n" for reason in reasons)
        return 2
    found = report.make(outcome, datetime.now(UTC).date().isoformat(), machine)
    _publish(found, options)
    if options.history:
        lines = zip(outcome.history.times, outcome.history.events, strict=True)
        options.history.write_text("".join(f"{at:9.3f}  {words(event)}\n" for at, event in lines), encoding="utf-8")
    return 1 if found.violations else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", choices=sorted(TOPOLOGIES), default="embedded")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long things fail (1)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the faults, and what each client does (0)")
    parser.add_argument("--rate", type=float, default=60.0, help="messages a second, of all senders together (60)")
    parser.add_argument("--gap", type=float, default=3.5, help="seconds from one fault to the next, on average (3.5)")
    parser.add_argument("--messages", type=int, default=0, help="go on until so many are accepted (0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the report goes as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="where it goes as one page with charts")
    parser.add_argument("--history", type=Path, metavar="FILE", help="where all that happened goes, a line each")
    parser.add_argument("--dir", type=Path, default=BUILD, help="where data and logs are kept meanwhile; a real disk")
    parser.add_argument("--mutant", type=_mutant, metavar="NAME", help=f"with a bug put in, of {MUTATIONS}")
    return parser.parse_args(arguments)


def _mutant(name: str) -> Mutant:
    found = [mutant for mutant in MUTANTS if name in mutant.name]
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{len(found)} mutants in {MUTATIONS} have {name!r} in their name; name one")
    return found[0]


def _run(options: argparse.Namespace) -> Outcome:
    options.dir.mkdir(parents=True, exist_ok=True)
    chosen = Options(options.seed, options.minutes * 60, options.rate, options.gap, options.messages)
    folder = Path(tempfile.mkdtemp(dir=options.dir.resolve(), prefix="chaos-"))
    more = broken(folder / "code", options.mutant) if options.mutant else {}
    with TOPOLOGIES[options.topology](folder, more) as cluster:
        outcome = uvloop.run(run(cluster, chosen, _tell))
    if outcome.violations:
        _tell(f"data and logs are kept in {options.dir / folder.name}")
    else:
        shutil.rmtree(folder)
    return outcome


def _tell(text: str) -> None:
    sys.stderr.write(f"{text.splitlines()[0][:300]}\n")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _publish(found: report.Report, options: argparse.Namespace) -> None:
    show(report.tables(found))
    for one in found.violations[:10]:
        sys.stdout.write(f"\n{one.promise}, at {one.at:.3f} s: {one.text}\n")
        sys.stdout.writelines(f"{line}\n" for line in one.history)
    sys.stdout.write(f"\n{report.verdict(found)}\n")
    if options.json:
        report.save(found, options.json)
    if options.html:
        options.html.parent.mkdir(parents=True, exist_ok=True)
        options.html.write_text(page.html(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
