"""``python -m tests.fuzz --seconds 60``: each target for that long, guided by coverage where atheris is installed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import REGRESSIONS, TARGETS

GUIDED = find_spec("atheris") is not None
MAX_BYTES = 2048
MISSING = (
    "atheris is for CPython 3.11 on Linux (x86-64): make PYTHON=python3.11; without it `make test` tries the targets"
)


def fuzz(name: str, seconds: int) -> str:
    """Fuzz one target; returns what libFuzzer says. Raises ``AssertionError`` with the input that it found."""
    _, seeds = TARGETS[name]
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for number, seed in enumerate([*seeds(), *REGRESSIONS[name]]):
            (corpus / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", "-seed=1", f"-artifact_prefix={directory}/"]
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options, str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
        found = [path.read_bytes() for path in Path(directory).glob("*-*")]
    assert done.returncode == 0, f"{name}: {found} for REGRESSIONS in tests/fuzz/targets.py\n{done.stdout}{done.stderr}"
    return done.stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if nothing was found; 1 if something was, or no fuzzer is installed; 130 if interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    given = parser.parse_args(arguments)
    if strangers := [name for name in given.targets if name not in TARGETS]:
        parser.error(f"there is no target {strangers[0]}; there are {', '.join(TARGETS)}")
    if not GUIDED:
        print(MISSING, file=sys.stderr)  # noqa: T201
        return 1
    for name in given.targets:
        try:
            report = fuzz(name, given.seconds)
        except AssertionError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
        except KeyboardInterrupt:
            return 130
        lines = [line for line in report.splitlines() if line.startswith(("#", "Done"))]
        print(f"{name}: {'; '.join(lines[-2:])}", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
