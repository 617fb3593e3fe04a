"""Checks ``docs/model/router.pml`` exhaustively with spin: ``python -m tests.proof.spin`` (``make model``)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).parents[2] / "docs" / "model" / "router.pml"
MISSING = "spin and a C compiler check the model: apt-get install spin gcc, or brew install spin"
MEMORY_MB = 6000
DEPTH = 100_000
SECONDS = 1800.0
INCOMPLETE = ("max search depth too small", "memory limit", "out of memory", "Search not completed")
"""What pan says where it has not looked at everything."""

QUICK = {
    "two devices, no fault": {"DEVICES": 2, "FAULTS": 0},
    "one device, two faults": {"DEVICES": 1, "FAULTS": 2},
    "two pipelines, one fault": {"DEVICES": 1, "FAULTS": 1, "PIPELINES": 2},
    "two migrators, one fault": {"DEVICES": 1, "FAULTS": 1, "MIGRATORS": 2},
    "three messages, one fault": {"DEVICES": 1, "FAULTS": 1, "MESSAGES": 3},
    "one page a poke, one fault": {"DEVICES": 1, "FAULTS": 1, "MESSAGES": 3, "ONE_PAGE": 1},
    "one file, one device, two faults": {"ONE_FILE": 1, "DEVICES": 1, "FAULTS": 2},
    "one file, two devices, no fault": {"ONE_FILE": 1, "DEVICES": 2, "FAULTS": 0},
    "one file, three messages, one fault": {"ONE_FILE": 1, "DEVICES": 1, "FAULTS": 1, "MESSAGES": 3},
    "one file, one page a poke, one fault": {"ONE_FILE": 1, "DEVICES": 1, "FAULTS": 1, "MESSAGES": 3, "ONE_PAGE": 1},
}
"""The bounds that the tests check, a few seconds each."""
LARGE = {
    "two devices, one fault": {"DEVICES": 2, "FAULTS": 1},
    "one device, three faults": {"DEVICES": 1, "FAULTS": 3},
    "one file, two devices, one fault": {"ONE_FILE": 1, "DEVICES": 2, "FAULTS": 1},
}
"""The bounds that take minutes and gigabytes."""

ENDLESS = "nothing is stuck: a run has no end"
ONE, TWO = {"DEVICES": 1, "FAULTS": 1}, {"DEVICES": 2, "FAULTS": 1}
PAGES = ONE | {"ONE_PAGE": 1}
FILE = ONE | {"ONE_FILE": 1}
BUGS: dict[str, tuple[str, str, dict[str, int]]] = {
    "COLD_FIRST": ("cold is read before hot", "in order", ONE),
    "ONE_LOOK": ("a fetch does not look again", "in order", ONE),
    "OVERTAKING": ("mail overtakes a cold write under way", "in order", ONE),
    "PENDING_NOT_ASKED": ("what was pending and is acknowledged holds up the rest", "at least once", TWO),
    "TOMBSTONE_FORGOTTEN": ("acknowledged ids are forgotten", "acknowledged stays away", ONE),
    "NEW_ID": ("a redelivery has a new id", "one id for life", ONE),
    "INGRESS_TOLD_FIRST": ("the ingress is told before the cold write", "accepted is durable", ONE),
    "PUSH_FIRST": ("the push command goes out before the cold write", "push after commit", ONE),
    "SETTLED_SILENTLY": ("who came online during a cold write is not poked", "nothing is stuck", ONE),
    "DELETE_FIRST": ("migration deletes before the write is confirmed", "accepted is durable", ONE),
    "NOT_MARKED": ("a migrator does not mark what it takes", "one id for life", TWO),
    "MOVE_LEASE_NOT_CHECKED": ("orphans are forgotten under a migrator's lease", "one id for life", TWO),
    "LEASE_GIVEN_BACK": ("a migration that has failed gives its lease back", "one id for life", TWO),
    "NO_ORPHANS": ("nobody deletes what a dead worker has left in cold", "one id for life", ONE),
    "LEASES_LAST": ("leases never run out", "nothing is stuck", ONE),
    "OLD_SOCKET": ("presence is removed by the old socket's close", "nothing is stuck", {"DEVICES": 2, "FAULTS": 0}),
    "NO_WELCOME": ("who connects is not told of mail that waits", "nothing is stuck", ONE),
    "WELCOME_HUSHES": ("who connects takes the unanswered poke of the others", "nothing is stuck", TWO),
    "CUT_ANSWERS": ("a page that was cut short answers the poke", "nothing is stuck", PAGES),
    "DEAD_FETCH_ANSWERS": ("a fetch that dies answers the poke", "nothing is stuck", PAGES),
    "NOT_BEHIND": ("in one file, mail overtakes what waits in the ingress", "in order", FILE),
    "COMMAND_LATER": ("in one file, the push command has a step of its own", "nothing is stuck", FILE),
    "COPY_STAYS": ("in one file, an acknowledgement leaves the message in cold", "one id for life", FILE),
    "KEY_FORGOTTEN": ("in one file, a keyed id is forgotten when it is acknowledged", "acknowledged stays away", FILE),
    "FORGOTTEN_UNDER_WAY": (
        "in one file, an id is forgotten that the ingress may bring again",
        "acknowledged stays away",
        FILE,
    ),
    "UNKNOWN_HOLDS_UP": (
        "in one file, what was pending and has left with its record holds up the rest",
        "at least once",
        TWO | {"ONE_FILE": 1},
    ),
    "MOVED_SILENTLY": ("in one file, a move publishes no push command", "nothing is stuck", FILE),
    "POKED_FOR_EVER": ("the sweeper pokes though nothing is there", ENDLESS, {"DEVICES": 1, "FAULTS": 0}),
}
"""For each switch ``BUG_…`` of the model: what is wrong, the promise that it breaks, and the bounds that show it."""
SLOW = {"PENDING_NOT_ASKED", "WELCOME_HUSHES", "UNKNOWN_HOLDS_UP"}
"""Their first trace is found after millions of states: not for every run of the tests."""


@dataclass(frozen=True, slots=True)
class Checked:
    """``broken`` is the promise that the first trace found breaks, if any; ``seconds`` without compiling."""

    broken: str | None
    states: int
    depth: int
    seconds: float


class MissingChecker(Exception):
    """Spin or the C compiler is not installed."""


class Unfinished(Exception):
    """The check did not come to an end within its memory, depth or time."""


def check(bounds: dict[str, int], bug: str | None = None) -> Checked:
    """Look at every state within ``bounds``; raises ``MissingChecker`` and ``Unfinished``."""
    with tempfile.TemporaryDirectory() as directory:
        _compile(directory, bounds, bug, "-DSAFETY")
        began = time.monotonic()
        report = _run(directory, "./pan", f"-m{DEPTH}")
        seconds = time.monotonic() - began
        broken = _broken(directory) if "errors: 0" not in report else None
    if broken is None and any(words in report for words in INCOMPLETE):
        raise Unfinished(report)
    return Checked(broken, _number(r"(\d+) states, stored", report), _number(r"depth reached (\d+)", report), seconds)


def endless(bounds: dict[str, int], bug: str | None = None) -> bool:
    """Whether any run goes round in a circle; raises as ``check`` does. Where none does, every run ends: no fairness
    has to be assumed, and what is judged when nothing moves any more is judged in each."""
    with tempfile.TemporaryDirectory() as directory:
        # No step of the model is marked as progress, so that every circle is one without.
        _compile(directory, bounds, bug, "-DNP")
        report = _run(directory, "./pan", "-l", f"-m{DEPTH}")
    if "errors: 0" not in report:
        return True
    if any(words in report for words in INCOMPLETE):
        raise Unfinished(report)
    return False


def breaks(bug: str) -> str | None:
    """The promise that the model breaks with this switch."""
    _, promise, bounds = BUGS[bug]
    if promise == ENDLESS:
        return ENDLESS if endless(bounds, bug) else None
    return check(bounds, bug).broken


def _compile(directory: str, bounds: dict[str, int], bug: str | None, kind: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if shutil.which("spin") is None or compiler is None:
        raise MissingChecker(MISSING)
    defined = [f"-D{name}={value}" for name, value in bounds.items()] + ([f"-DBUG_{bug}"] if bug else [])
    shutil.copy(MODEL, directory)
    _run(directory, "spin", *defined, "-a", MODEL.name)
    # A bug is found sooner than an optimizer is done.
    _run(directory, compiler, "-w", "-O0" if bug else "-O1", kind, f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c")


def _run(directory: str, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode and command[0] != "./pan":
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _broken(directory: str) -> str:
    replayed = _run(directory, "./pan", "-r")
    found = re.search(r"^broken: (.+?)\s*$", replayed, re.MULTILINE)
    return found[1] if found else f"something that is no promise: {replayed[-2000:]}"


def _number(pattern: str, report: str) -> int:
    found = re.search(pattern, report)
    if found is None:
        raise Unfinished(report)
    return int(found[1])


def main() -> int:
    """Print what ``docs/model/README.md`` shows."""
    failed = 0
    try:
        print("| bounds | states | longest run | seconds |\n|---|---:|---:|---:|")  # noqa: T201
        for name, bounds in (QUICK | LARGE).items():
            checked = check(bounds)
            failed += checked.broken is not None or (name in QUICK and endless(bounds))
            result = f"{checked.states:,} | {checked.depth} | {checked.seconds:.0f}"
            print(f"| {name} | {checked.broken or result} |", flush=True)  # noqa: T201
        print("\n| switch | what is wrong | promise broken |\n|---|---|---|")  # noqa: T201
        for bug, (wrong, promise, _) in BUGS.items():
            found = breaks(bug)
            failed += found != promise
            print(f"| `BUG_{bug}` | {wrong} | {found} |", flush=True)  # noqa: T201
    except MissingChecker as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
