"""Seal text for somebody: python examples/sealed_sender/seal.py alice bob "hello" → an envelope on stdout.

Keys are kept in ./keys; the recipient's card must be there: bob makes it by running open.py once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sealing import Identity, seal

KEYS = Path("keys")


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: seal.py SENDER RECIPIENT TEXT")
    sender, recipient, text = sys.argv[1:]
    card = KEYS / f"{recipient}.card"
    if not card.exists():
        sys.exit(f"{card} is missing: ask {recipient} for it, or run open.py {recipient} to make it")
    try:
        envelope = seal(text, Identity.open(KEYS, sender), f"urn:sm:user:{recipient}", card.read_bytes())
    except (OSError, ValueError) as error:
        sys.exit(f"seal.py: {error}")
    print(json.dumps(envelope))


if __name__ == "__main__":
    main()
