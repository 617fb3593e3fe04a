"""``python -m tests.sim``: run many seeds, or look closely at one."""

from __future__ import annotations

import argparse
import gc
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from tests.sim import history as h
from tests.sim.plan import Plan, make
from tests.sim.run import Verdict, run
from tests.sim.shrink import shrink
from tests.sim.vendors.plan import make as vendor_plan

COLLECT_RUNS = 50
_DULL = re.compile(r"\b(expire|hot_users|purge|orphans|renew|take)\(.*-> (\(\)|0)$")
"""Calls that found nothing to do."""


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """0 if every promise was kept; 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--topology", choices=["vendors"], help="over simulated Redis, Firestore and Pub/Sub only")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=3000, help="how many seeds")
    parser.add_argument("--bare", action="store_true", help="at the first failure, do not shorten its run")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure; count")
    parser.add_argument("--seed", type=int, help="run this seed only and print its trace")
    parser.add_argument("--calls", action="store_true", help="with --seed: the trace tells each call to a store")
    parser.add_argument("--shrink", action="store_true", help="with --seed: shorten the run first")
    options = parser.parse_args(arguments)
    plan_of_seed = vendor_plan if options.topology == "vendors" else make
    if options.seed is not None:
        return _look(plan_of_seed(options.seed), shorten=options.shrink, calls=options.calls)
    seeds = range(options.start, options.start + options.seeds)
    return _search(seeds, plan_of_seed, keep_going=options.keep_going, bare=options.bare)


def _search(seeds: range, plan_of_seed: Callable[[int], Plan], *, keep_going: bool, bare: bool) -> int:
    gc.disable()
    started, failures = time.perf_counter(), Counter[str]()
    requests, virtual = 0, 0.0
    for count, seed in enumerate(seeds, 1):
        verdict = run(plan_of_seed(seed))
        requests += sum(isinstance(event, h.Sending | h.Fetching | h.Acking) for event in verdict.history.events)
        virtual += verdict.seconds
        if verdict.violations:
            failures[verdict.violations[0].promise] += 1
            if not keep_going and not bare:
                _report(seed, verdict)
                return 1
            first = verdict.violations[0]
            _say(f"seed {seed}: {first.promise}: {first.text.splitlines()[-1]}")
            if bare:
                return 1
        if count % COLLECT_RUNS == 0:
            gc.collect()
    seconds = time.perf_counter() - started
    _say(
        f"{len(seeds)} seeds, {requests} requests, {virtual / 3600:.1f} virtual hours in {seconds:.0f} s "
        f"({60 * len(seeds) / seconds:.0f} a minute): "
        + (", ".join(f"{promise}: {number}" for promise, number in failures.most_common()) or "every promise kept")
    )
    return 1 if failures else 0


def _report(seed: int, verdict: Verdict) -> None:
    _say(f"seed {seed} breaks a promise; shortening its run …")
    short = shrink(verdict)
    _say(*trace(short))
    option = "--topology vendors " if verdict.plan.topology == "vendors" else ""
    _say(f"\nagain: python -m tests.sim {option}--seed {seed} [--shrink] [--calls]")


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
            yield f"{at:9.3f}  {words(event)}"
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


def words(event: h.Event) -> str:
    """One line for one event."""
    if isinstance(event, h.Note):
        return f"{event.who:8} {event.text}"
    if isinstance(event, h.Fetched):
        return (
            f"{'':8} #{event.op} got {', '.join(f'{item.tag} ({item.id[-6:]})' for item in event.batch) or 'nothing'}"
        )
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    op = f"#{fields.pop('op')} " if "op" in fields else ""
    user = str(fields.pop("user", "")).rpartition(":")[2]
    rest = ", ".join(f"{name} {value}" for name, value in fields.items() if value not in ((), False, 0.0))
    return f"{user:8} {op}{type(event).__name__.lower()} {rest}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
