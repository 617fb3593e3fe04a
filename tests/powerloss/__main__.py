"""``python -m tests.powerloss``: make many images of a power loss, and open each."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.powerloss.building import build
from tests.powerloss.images import read
from tests.powerloss.rig import look_at_all, moments, notices_missing_sync
from tests.powerloss.traffic import record


def main(arguments: Sequence[str]) -> int:
    """0 where nothing was wrong, and a missing sync is noticed."""
    parser = argparse.ArgumentParser("python -m tests.powerloss", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1000, help="how many, of one run (1000)")
    parser.add_argument("--messages", type=int, default=1000, help="that are sent in it (1000)")
    parser.add_argument("--keep", type=Path, help="a folder for the images with something wrong")
    options = parser.parse_args(arguments)
    # That a log does not end with a whole commit is told each time, and is so in most images.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    chance = random.Random(f"{options.seed} powerloss")
    with tempfile.TemporaryDirectory(prefix="powerloss-") as folder:
        recorded = record(Path(folder), build(Path(folder)), seed=options.seed, messages=options.messages)
    records = read(recorded.journal)
    _say(f"{len(recorded.mail)} messages, {len(records)} calls that changed the files, {len(recorded.journal)} bytes")
    when = moments(records, options.images, chance)
    looked = asyncio.run(look_at_all(recorded, records, when, chance, options.keep))
    for moment, wrong in sorted(looked.wrong.items()):
        _say(f"after {moment} calls: {'; '.join(wrong[:5])}")
    missed = not asyncio.run(notices_missing_sync(recorded, records, chance))
    _say(
        f"{looked.images} images, {len(looked.wrong)} with something wrong. A missing sync is {'NOT ' * missed}noticed."
    )
    return int(bool(looked.wrong) or missed)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
