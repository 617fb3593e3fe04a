"""``python -m benchmarks [SCENARIO...]``: run, print the table, keep the JSON."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks.figures import Figure
from benchmarks.load_http import LoadError
from benchmarks.machine import describe
from benchmarks.production import LIBRARIES, Topology, topology
from benchmarks.report import PRODUCTION_RESULTS, RESULTS, Run, print_figures, print_run, save, summary
from benchmarks.scenarios import (
    abuse,
    depth,
    draining,
    end_to_end,
    idle,
    memory,
    migrating,
    poking,
    rabbitmq,
    sending,
    starting,
    timing,
    workers,
)
from benchmarks.scenarios.production import accepting, calls, moving, nodes, offline, online, redis_memory
from benchmarks.servers import Bench, ServerError
from tests.support.servers import end_when_told

Scenario = Callable[[Bench], Coroutine[None, None, list[Figure]]]

SCENARIOS: dict[str, Scenario] = {
    module.NAME: module.run
    for module in (sending, end_to_end, workers, poking, draining, depth, memory, migrating, starting, idle, rabbitmq)
}
PRODUCTION: dict[str, Callable[[Bench, Topology], Coroutine[None, None, list[Figure]]]] = {
    module.NAME: module.run for module in (accepting, calls, online, offline, redis_memory, moving, nodes)
}
SINGLE_BY_NAME_ONLY: dict[str, Scenario] = {
    abuse.NAME: abuse.run,
    abuse.USERS: abuse.users_only,
    timing.NAME: timing.run,
}
BY_NAME_ONLY = {moving.DEEP: moving.deep}
BUILD = Path("build")
"""On the disk of the checkout: the temporary directory of the system may be no disk at all."""
OPEN_FILES = 12_000
"""For thousands of sockets here, and as many in the servers, which inherit the limit."""


def main(arguments: Sequence[str]) -> int:
    """0 where every goal was met, 1 where one was missed, 2 where a server failed or lost mail."""
    options = _options(arguments)
    _raise_file_limit()
    end_when_told()
    options.dir.mkdir(parents=True, exist_ok=True)
    if options.profile is not None:
        options.profile.mkdir(parents=True, exist_ok=True)
    scenario = _production if options.production else _single
    with tempfile.TemporaryDirectory(dir=options.dir, prefix="bench-") as directory:
        bench = Bench(Path(directory), quick=options.quick, rounds=options.rounds, profiles=options.profile)
        figures: list[Figure] = []
        try:
            run = _run(bench, figures, scenario(bench, options.scenario), LIBRARIES if options.production else ())
        except (LoadError, ServerError) as error:
            print_figures("before the failure", figures)
            sys.stderr.write(f"no figure, since {error}\n")
            return 2
        except KeyboardInterrupt:
            return 130
    print_run(run)
    sys.stdout.write(f"\n{summary(run)}\n")
    whole = not (options.scenario or options.quick or options.profile)
    usual = PRODUCTION_RESULTS if options.production else RESULTS
    if path := options.json or (usual if whole else None):
        save(run, path)
    return 1 if run.missed else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="What the router costs, beside the floor.")
    parser.add_argument(
        "scenario",
        nargs="*",
        help=f"one or more of {', '.join(SCENARIOS)}, all where none is named; and {', '.join(SINGLE_BY_NAME_ONLY)}",
    )
    parser.add_argument(
        "--production",
        action="store_true",
        help=f"with Redis and Google's emulators instead; then of {', '.join(PRODUCTION)}, and {moving.DEEP}",
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of floor and router; the median counts")
    parser.add_argument("--quick", action="store_true", help="a fifth of the work: to see whether it runs")
    parser.add_argument("--json", type=Path, help="where the run goes; a whole run goes to benchmarks/results anyway")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="profile each server into DIR; figures are worthless"
    )
    parser.add_argument("--dir", type=Path, default=BUILD, help="where the routers keep their data; on a real disk")
    options = parser.parse_args(arguments)
    known = {**PRODUCTION, **BY_NAME_ONLY} if options.production else {**SCENARIOS, **SINGLE_BY_NAME_ONLY}
    if unknown := set(options.scenario) - set(known):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _single(bench: Bench, names: Sequence[str]) -> Iterator[Figure]:
    """The router on one machine, beside the floor."""
    known = {**SCENARIOS, **SINGLE_BY_NAME_ONLY}
    for name in names or SCENARIOS:
        sys.stderr.write(f"{name} ...\n")
        yield from uvloop.run(known[name](bench))


def _production(bench: Bench, names: Sequence[str]) -> Iterator[Figure]:
    """One set-up for all scenarios; each brings people of its own."""
    with topology(bench.directory, bench.profiles) as running:
        known = {**PRODUCTION, **BY_NAME_ONLY}
        for name in sorted(names or PRODUCTION, key=list(known).index):  # the first finds no pipeline
            sys.stderr.write(f"{name} ...\n")
            yield from uvloop.run(known[name](bench, running))


def _run(bench: Bench, figures: list[Figure], found: Iterator[Figure], libraries: Sequence[str]) -> Run:
    """Collect what is ``found`` in ``figures``, which keeps it even where a scenario fails."""
    started, load_average = time.monotonic(), os.getloadavg()[0]
    figures.extend(found)
    return Run(
        at=datetime.now(UTC).date().isoformat(),
        seconds=round(time.monotonic() - started),
        rounds=bench.rounds,
        quick=bench.quick,
        machine=describe(bench.directory, libraries),
        figures=figures,
        load_average=load_average,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
