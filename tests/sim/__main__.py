"""``python -m tests.sim``: run many seeds, or look closely at one."""

from __future__ import annotations

import argparse
import gc
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import msgspec

from tests.sim import history as h
from tests.sim.checker import Violation
from tests.sim.plan import Plan, day, make
from tests.sim.run import Verdict, run
from tests.sim.shrink import shrink
from tests.sim.vendors import plan as vendors
from tests.sim.worlds import PROMISE, run_pair

PLANS: dict[str, Callable[[int], Plan]] = {"own": make, "vendors": vendors.make}
"""Whose stores: the router's own, in all topologies; or Redis, Firestore and Pub/Sub."""
WORLDS = "worlds"
"""In place of a topology: pairs of runs that differ in what a victim does."""
WORLDS_SHARE = 20
"""One in so many seeds of the router's own stores is run as a pair too."""
COLLECT_RUNS = 50
RUN_OPERATIONS = 200
"""Speeds are told in runs of so many operations: requests of clients and calls to stores."""
_DULL = re.compile(r"\b(expired?|hot_users|purge|orphans|renew|take)\(.*-> (\(\)|0)$")
"""Calls that found nothing to do."""


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def main(arguments: list[str]) -> int:
    """0 if every promise was kept; 1 if not; 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--topology", choices=[*PLANS, WORLDS], default="own", help="over which stores; or two worlds")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=_positive, default=3000, help="how many seeds")
    parser.add_argument("--bare", action="store_true", help="at the first failure, do not shorten its run")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure; count")
    parser.add_argument("--seed", type=int, help="run this seed only and print its trace")
    parser.add_argument("--calls", action="store_true", help="with --seed: the trace tells each call to a store")
    parser.add_argument("--shrink", action="store_true", help="with --seed: shorten the run first")
    parser.add_argument("--jobs", type=_positive, default=1, help="how many processes")
    parser.add_argument("--day", action="store_true", help="a whole day of a small cluster")
    parser.add_argument("--hours", type=float, default=24.0, help="with --day: a shorter one")
    try:
        return _do(parser.parse_args(arguments))
    except KeyboardInterrupt:
        return 130


def _do(options: argparse.Namespace) -> int:
    if options.day:
        return _day(options.seed or 0, options.hours)
    if options.seed is not None:
        if options.topology == WORLDS:
            return _look_at_pair(options.seed)
        return _look(PLANS[options.topology](options.seed), shorten=options.shrink, calls=options.calls)
    seeds = range(options.start, options.start + options.seeds)
    return _search(options.topology, seeds, keep_going=options.keep_going, bare=options.bare, jobs=options.jobs)


class Found(msgspec.Struct, frozen=True):
    """What came of some seeds."""

    seeds: int = 0
    failures: tuple[tuple[int, Violation], ...] = ()
    """Seeds that broke a promise, and which one first."""
    requests: int = 0
    calls: int = 0
    virtual_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __add__(self, other: Found) -> Found:
        return Found(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    def __str__(self) -> str:
        minutes = self.cpu_seconds / 60
        operations = self.requests + self.calls
        kept = Counter(violation.promise for _, violation in self.failures).most_common()
        return (
            f"{self.seeds} seeds: {self.requests} requests and {self.calls} store calls in "
            f"{self.virtual_seconds / 3600:.1f} virtual hours and {self.cpu_seconds:.0f} s of one core. "
            f"In a minute of it: {self.seeds / minutes:.0f} runs; "
            f"{operations / minutes / RUN_OPERATIONS:.0f} of {RUN_OPERATIONS} operations. "
            + (", ".join(f"{promise}: {number}" for promise, number in kept) or "Every promise is kept.")
        )


def tried(seeds: Sequence[int], stop: bool = True, topology: str = "own") -> Found:
    """Run ``seeds``; ``stop``: no further than the first that breaks a promise."""
    gc.disable()
    started, found = time.process_time(), Found()
    for count, seed in enumerate(seeds, 1):
        verdicts = list(_verdicts(topology, seed))
        failures = tuple((seed, verdict.violations[0]) for verdict in verdicts if verdict.violations)[:1]
        found += Found(1, failures)
        for verdict in verdicts:
            found += Found(0, (), verdict.requests, verdict.calls, verdict.seconds)
        if failures and stop:
            break
        if count % COLLECT_RUNS == 0:
            gc.collect()
    return msgspec.structs.replace(found, cpu_seconds=time.process_time() - started)


def _verdicts(topology: str, seed: int) -> Iterator[Verdict]:
    if topology != WORLDS:
        yield run(PLANS[topology](seed))
    if topology == WORLDS or (topology == "own" and seed % WORLDS_SHARE == 0):
        yield run_pair(seed)


def _look_at_pair(seed: int) -> int:
    verdict = run_pair(seed)
    _say(plan_of(verdict), *(f">>> {violation.promise}: {violation.text}" for violation in verdict.violations))
    return 1 if verdict.violations else 0


def _day(seed: int, hours: float) -> int:
    gc.disable()
    started = time.process_time()
    verdict = run(day(seed, hours))
    failures = ((seed, verdict.violations[0]),) if verdict.violations else ()
    seconds = time.process_time() - started
    _say(str(Found(1, failures, verdict.requests, verdict.calls, verdict.seconds, seconds)))
    _say(*(f"{violation.at:.3f} {violation.promise}: {violation.text}" for violation in verdict.violations))
    return 1 if verdict.violations else 0


def _search(topology: str, seeds: Sequence[int], *, keep_going: bool, bare: bool, jobs: int) -> int:
    found = Found()
    for part in _tried(topology, seeds, stop=not keep_going, jobs=jobs):
        found += part
        for seed, violation in part.failures:
            if not (keep_going or bare or violation.promise == PROMISE):
                _report(topology, seed)
                return 1
            _say(f"seed {seed}: {violation.promise}: {violation.text.splitlines()[-1]}")
            if not keep_going:
                return 1
    _say(str(found))
    return 1 if found.failures else 0


def _tried(topology: str, seeds: Sequence[int], *, stop: bool, jobs: int) -> Iterator[Found]:
    """In the order of ``seeds``, some at a time."""
    parts = [seeds[start : start + COLLECT_RUNS] for start in range(0, len(seeds), COLLECT_RUNS)]
    if jobs == 1:
        yield from (tried(part, stop, topology) for part in parts)
        return
    # An interrupt is for this process, which then asks for no more.
    with ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            yield from pool.map(tried, parts, [stop] * len(parts), [topology] * len(parts))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _report(topology: str, seed: int) -> None:
    _say(f"seed {seed} breaks a promise; shortening its run …")
    short = shrink(run(PLANS[topology](seed)))
    _say(*trace(short))
    _say(f"\nagain: python -m tests.sim --topology {topology} --seed {seed} [--shrink] [--calls]")


def _look(plan: Plan, *, shorten: bool, calls: bool) -> int:
    verdict = run(plan)
    if shorten and verdict.violations:
        verdict = shrink(verdict)
    _say(*trace(verdict, calls=calls))
    return 1 if verdict.violations else 0


def trace(verdict: Verdict, *, calls: bool = False) -> Iterator[str]:
    """The plan, who did what at which virtual time, and what was wrong with it; up to the last thing that was.

    ``calls``: with each call to a store.
    """
    yield plan_of(verdict)
    if calls:
        verdict = run(verdict.plan, traced=True)
    wrong: dict[int, list[str]] = {}
    for violation in verdict.violations:
        wrong.setdefault(violation.index, []).append(f"{violation.promise}: {violation.text}")
    history, last = verdict.history, max(wrong, default=len(verdict.history))
    for index, (at, event) in enumerate(zip(history.times, history.events, strict=True)):
        if index > last:
            return
        if not (isinstance(event, h.Note) and _DULL.search(event.text)):
            yield f"{at:9.3f}  {h.words(event)}"
        for text in wrong.get(index, ()):
            yield f"           >>> {text}"


def plan_of(verdict: Verdict) -> str:
    """The plan, a line for each part."""
    lines = []
    for name in verdict.plan.__struct_fields__:
        value = getattr(verdict.plan, name)
        if isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            lines += [f"  {name}:", *(f"    {part}" for part in value)]
        else:
            lines.append(f"  {name}: {value}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
