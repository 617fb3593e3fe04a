"""Many images of one recorded run, and whether a sync that is missing would be noticed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from router.errors import DataDirError
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


def without_syncs(records: Sequence[Record], chance: random.Random) -> tuple[list[Record], range]:
    """``records`` without the syncs of the log from one of them on, and the moments behind it. A single one would often
    be made good by the next, before anybody has got an answer."""
    log = {one.file for one in records if one.data.endswith(b"-wal")}
    syncs = [place for place, one in enumerate(records) if one.kind is Kind.SYNCED and one.file in log]
    first = chance.randrange(len(syncs) - 1)
    left_out = set(syncs[first:])
    rest = [one for place, one in enumerate(records) if place not in left_out]
    return rest, range(syncs[first], len(rest))


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
            try:
                found = await look(image, recorded, Path(folder))
            except DataDirError as error:
                found = [str(error)]
            if found:
                wrong[moment] = found
                if keep is not None:
                    image.write(_made(keep / str(moment)))
    return Looked(len(when), wrong)


async def notices_missing_sync(recorded: Recorded, records: Sequence[Record], chance: random.Random) -> bool:
    """Whether the judge sees that syncs of the log are missing, in one of some images that this can have spoilt."""
    for _ in range(20):
        rest, spoilt = without_syncs(records, chance)
        when = sorted(chance.choice(spoilt) for _ in range(4)) if spoilt else []
        if (await look_at_all(recorded, rest, when, chance)).wrong:
            return True
    return False


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
