"""``python -m tests.sim.mutants``: deliberate bugs of the kind that such systems ship, each of which must be caught.

Each is a small change, made in a copy of the code; then seeds are tried until a promise breaks.
``--write`` writes the table in ``docs/proof``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.sim.mutations import MUTANTS
from tests.sim.vendors.mutations import MUTANTS as VENDOR_MUTANTS
from tests.sim.worlds_mutations import MUTANTS as WORLD_MUTANTS
from tests.support.mutation import Mutant, put

ROOT = Path(__file__).parents[2]
SEEDS = 2000
"""Each mutant is caught within so many seeds."""
SECONDS = 3600.0
PROOF = ROOT / "docs" / "proof"
PAGES = {"own": PROOF / "mutants.md", "vendors": PROOF / "simulation.md", "worlds": PROOF / "two-worlds.md"}
"""Where the tables are."""
OF = {
    "own": (MUTANTS, "mutants"),
    "vendors": (VENDOR_MUTANTS, "vendor mutants"),
    "worlds": (WORLD_MUTANTS, "world mutants"),
}
_FOUND = re.compile(r"^seed (\d+): ([^:]+): ", re.MULTILINE)
_TABLE = r"(?<=<!-- {0} -->\n).*(?=<!-- end of {0} -->)"


@dataclass(frozen=True, slots=True)
class Caught:
    """How a mutant was caught."""

    mutant: Mutant
    seeds: int
    promise: str


def main(arguments: Sequence[str]) -> int:
    """0 if every mutant was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants with one of these in their names")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds are tried at most")
    parser.add_argument("--jobs", type=int, default=1, help="how many are hunted at once")
    parser.add_argument("--topology", choices=list(PAGES), default="own", help="whose bugs, over which stores")
    parser.add_argument("--write", action="store_true", help="write the table in docs/proof")
    options = parser.parse_args(arguments)
    mutants, table_of = OF[options.topology]
    for name in options.names:
        if not any(name in one.name for one in mutants):
            parser.error(f"no mutant has {name!r} in its name")
    if options.write and options.names:
        parser.error("--write is for all of them: the table would lose the others")
    chosen = [one for one in mutants if not options.names or any(name in one.name for name in options.names)]
    caught: list[Caught] = []
    for mutant, found in hunt(chosen, options.seeds, options.jobs, options.topology):
        caught += [found] if found else []
        how = f"{found.seeds:5} seeds  {found.promise}" if found else "  not caught"
        sys.stdout.write(f"{how:40} {mutant.name}\n")
        sys.stdout.flush()
    if options.write:
        place = re.compile(_TABLE.format(table_of), re.DOTALL)
        page = PAGES[options.topology]
        page.write_text(place.sub(table(caught), page.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{len(caught)} of {len(chosen)} mutants caught\n")
    return 0 if len(caught) == len(chosen) else 1


def hunt(
    mutants: Sequence[Mutant], seeds: int, jobs: int, topology: str = "own"
) -> Iterator[tuple[Mutant, Caught | None]]:
    """Each mutant, and how it was caught."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from zip(mutants, pool.map(lambda mutant: _hunt(mutant, seeds, topology), mutants), strict=True)


def _hunt(mutant: Mutant, seeds: int, topology: str) -> Caught | None:
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for name in ("router", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        put(mutant, ROOT, copy)
        return _try(copy, mutant, seeds, topology)


def _try(copy: Path, mutant: Mutant, seeds: int, topology: str) -> Caught | None:
    command = [sys.executable, "-B", "-m", "tests.sim", "--bare", "--seeds", str(seeds), "--topology", topology]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=SECONDS, check=False)
    found = _FOUND.search(done.stdout)
    if found is None:
        if done.returncode:
            raise RuntimeError(f"{mutant.name}: {done.stderr}")
        return None
    return Caught(mutant, int(found[1]) + 1, found[2])


def table(caught: Sequence[Caught]) -> str:
    """In Markdown, the one that took longest first."""
    lines = ["| mutant | seeds | promise broken |", "|---|---:|---|"]
    slowest_first = sorted(caught, key=lambda found: -found.seeds)
    lines += [f"| {one.mutant.name} | {one.seeds} | {one.promise} |" for one in slowest_first]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
