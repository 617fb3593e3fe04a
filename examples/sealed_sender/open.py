"""Open what `router listen` has saved: python examples/sealed_sender/open.py bob inbox/*.json → who wrote what, when
it came.

Without files it only makes the keys of this person, in ./keys.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from sealing import Identity, NotGenuine, open_sealed

KEYS = Path("keys")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: open.py READER [FILE…]")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what others write may be more than this terminal can show
    try:
        reader = Identity.open(KEYS, sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"open.py: {error}")
    refused = 0
    for file in sorted(map(Path, sys.argv[2:]), key=came_at):
        try:
            sender, card, text = open_sealed(envelope(file), reader)
            doubt = "" if known(sender, card) else " (unknown key)"
        except (NotGenuine, OSError) as error:
            print(f"{file}: {error.strerror if isinstance(error, OSError) else error}", file=sys.stderr)
            refused = 1
            continue
        print(f"{sender}{doubt}: {text}")
    sys.exit(refused)


def came_at(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def envelope(file: Path) -> dict[str, str]:
    """What ``file`` holds, which need not be an envelope."""
    try:
        found: dict[str, str] = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotGenuine("not JSON") from error
    return found


def known(sender: str, card: bytes) -> bool:
    """Whether this is the card that ``sender`` gave us."""
    path = KEYS / f"{sender}.card"
    return "/" not in sender and path.exists() and path.read_bytes() == card


if __name__ == "__main__":
    main()
