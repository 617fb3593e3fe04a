"""``python -m tools.check``: are the generated files and the locks what the code says? ``--write`` writes the files."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.generated import GENERATED
from tools.lock import lock_problems

ROOT = Path(__file__).parent.parent
SHOWN_LINES = 20


def main(arguments: list[str]) -> int:
    """0 if all is as it should be, or was written; 1 if not."""
    if arguments not in ([], ["--write"]):
        print("usage: python -m tools.check [--write]", file=sys.stderr)
        return 2
    if arguments:
        write(ROOT)
    problems = [*differences(ROOT), *(f"{problem}; run: make lock" for problem in lock_problems(ROOT))]
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else "generated files and locks are what the code says")
    return 1 if problems else 0


def write(root: Path) -> None:
    """Write anew what differs."""
    for name, render in GENERATED.items():
        path, text = root / name, render(root)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")


def differences(root: Path) -> Iterator[str]:
    """One entry for each generated file that is not what the code says."""
    for name, render in GENERATED.items():
        path, wanted = root / name, render(root)
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != wanted:
            lines = difflib.unified_diff(found.splitlines(), wanted.splitlines(), name, "the code", lineterm="", n=0)
            diff = "\n".join(f"    {line}" for line in list(lines)[:SHOWN_LINES])
            yield f"{name} is not what the code says; run: make docs\n{diff}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
