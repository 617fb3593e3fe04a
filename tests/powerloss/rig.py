"""Many images of one recorded run, and whether a sync that is missing would be noticed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from tests.powerloss.images import Kind, Record, images
from tests.powerloss.judge import look
from tests.powerloss.traffic import Recorded


class Looked(Struct, frozen=True):
    """How many images were opened, and what was wrong with which (its moment in the journal)."""

    images: int
    wrong: dict[int, list[str]]


def moments(records: Sequence[Record], count: int, chance: random.Random) -> list[int]:
    """``count`` of them at random, in order."""
    return sorted(chance.randrange(len(records) + 1) for _ in range(count))


def without_sync(records: Sequence[Record], chance: random.Random) -> tuple[list[Record], range]:
    """``records`` without one sync of the log, and the moments from it to the next one of that file."""
    log = {one.file for one in records if one.data.endswith(b"-wal")}
    syncs = [place for place, one in enumerate(records) if one.kind is Kind.SYNCED and one.file in log]
    left_out = chance.randrange(len(syncs) - 1)
    rest = [one for place, one in enumerate(records) if place != syncs[left_out]]
    return rest, range(syncs[left_out], syncs[left_out + 1] - 1)


async def look_at_all(
    recorded: Recorded,
    records: Sequence[Record],
    when: Sequence[int],
    chance: random.Random,
    keep: Path | None = None,
) -> Looked:
    """Make an image at each of the moments ``when``, and judge it. ``keep``: a folder for those that are wrong."""
    wrong: dict[int, list[str]] = {}
    for moment, image in zip(when, images(records, when, chance), strict=True):
        with tempfile.TemporaryDirectory(prefix="powerloss-") as folder:
            if found := await look(image, recorded, Path(folder)):
                wrong[moment] = found
                if keep is not None:
                    image.write(_made(keep / str(moment)))
    return Looked(len(when), wrong)


async def notices_missing_sync(recorded: Recorded, records: Sequence[Record], chance: random.Random) -> bool:
    """Whether the judge sees that one sync of the log is missing, in one of some images that this can have spoilt."""
    for _ in range(20):
        rest, spoilt = without_sync(records, chance)
        when = sorted(chance.choice(spoilt) for _ in range(4)) if spoilt else []
        if (await look_at_all(recorded, rest, when, chance)).wrong:
            return True
    return False


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
