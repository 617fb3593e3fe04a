"""Open what `router listen` has saved: python examples/sealed_sender/open.py bob inbox/*.json → who wrote what, when
it came.

Without files it only makes the keys of this person, in ./keys.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sealing import Identity, NotGenuine, open_sealed

KEYS = Path("keys")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: open.py READER [FILE…]")
    reader = Identity.open(KEYS, sys.argv[1])
    refused = 0
    for file in sorted(map(Path, sys.argv[2:]), key=lambda path: path.stat().st_mtime_ns):
        try:
            sender, card, text = open_sealed(json.loads(file.read_text()), reader)
        except NotGenuine as error:
            print(f"{file}: {error}", file=sys.stderr)
            refused = 1
            continue
        known = KEYS / f"{sender}.card"
        genuine = known.exists() and known.read_bytes() == card
        print(f"{sender}{'' if genuine else ' (unknown key)'}: {text}")
    sys.exit(refused)


if __name__ == "__main__":
    main()
