"""A short run of the rig, and what its parts can tell."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from pathlib import Path

import pytest

from tests.powerloss.building import build, compiler
from tests.powerloss.images import Image, Kind, images, read
from tests.powerloss.judge import judged
from tests.powerloss.rig import look_at_all, moments, notices_missing_sync
from tests.powerloss.traffic import Mail, record

pytestmark = pytest.mark.anyio
DB = b"/data/router.db"
Step = tuple[Kind, int, int, bytes]


def journal(*steps: Step) -> bytes:
    return b"".join(struct.pack("=IIQQ", kind, file, offset, len(data)) + data for kind, file, offset, data in steps)


def possible(*steps: Step) -> set[bytes | None]:
    """What the database may hold after all of ``steps``; ``None`` where it is not there."""
    records = read(journal((Kind.OPENED, 0, 0, b"/data"), (Kind.CREATED, 1, 0, DB), *steps))
    chance = random.Random(0)
    found = images(records, [len(records)] * 300, chance)
    return {image.files.get(DB.decode()) for image in found}


async def test_what_was_confirmed_survives_a_loss_of_power(tmp_path: Path) -> None:
    """A real router; images of what its disk may hold; and the judge sees that a sync is missing."""
    if compiler() is None:
        assert os.environ.get("CI") != "true", "CI has a C compiler"
        pytest.skip("no C compiler: cc, gcc or clang")
    recorded = await asyncio.to_thread(record, tmp_path, build(tmp_path), seed=1, messages=60)
    records, chance = read(recorded.journal), random.Random(1)
    looked = await look_at_all(recorded, records, moments(records, 25, chance), chance)
    assert (looked.images, looked.wrong) == (25, {})
    assert await notices_missing_sync(recorded, records, chance)


async def test_what_was_synced_is_there_and_of_the_rest_any_sector() -> None:
    old, new = b"a" * 1024, b"b" * 1024
    synced = (Kind.WRITTEN, 1, 0, old), (Kind.SYNCED, 1, 0, b""), (Kind.SYNCED, 0, 0, b"")
    assert possible(*synced) == {old}
    torn = {old, new, b"a" * 512 + b"b" * 512, b"b" * 512 + b"a" * 512}
    assert possible(*synced, (Kind.WRITTEN, 1, 0, new)) == torn
    assert possible(*synced, (Kind.TRUNCATED, 1, 100, b"")) == {old, old[:100]}
    assert possible(*synced, (Kind.UNLINKED, 1, 0, b"")) == {old, None}


async def test_a_new_file_is_there_once_its_directory_is_synced() -> None:
    assert possible((Kind.SYNCED, 1, 0, b"")) == {b"", None}
    assert possible((Kind.SYNCED, 1, 0, b""), (Kind.SYNCED, 0, 0, b"")) == {b""}


def test_a_record_that_was_cut_short_does_not_count() -> None:
    whole = journal((Kind.CREATED, 0, 0, DB), (Kind.WRITTEN, 0, 0, b"xyz"))
    assert [one.data for one in read(whole)] == [DB, b"xyz"]
    assert [one.data for one in read(whole[:-1])] == [DB]


def test_an_image_lies_in_one_folder(tmp_path: Path) -> None:
    Image(0, {"/data/router.db": b"1", "/data/router.db-wal": b"2"}).write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"router.db": b"1", "router.db-wal": b"2"}


A = Mail("u", "a", began=1.0, confirmed=2.0, confirmed_at=10)
B = Mail("u", "b", began=3.0, confirmed=4.0, confirmed_at=20)
READ = Mail("u", "r", began=1.0, confirmed=2.0, confirmed_at=10, ack_began_at=30, acked_at=40)


@pytest.mark.parametrize(
    ("found", "mail", "at", "wrong"),
    [
        (["a", "b"], [A, B], 20, 0),
        (["a"], [A, B], 19, 0),
        (["a"], [A, B], 20, 1),
        (["b", "a"], [A, B], 20, 1),
        (["a", "a"], [A], 10, 1),
        (["r"], [READ], 30, 0),
        ([], [READ], 30, 1),
        (["r"], [READ], 39, 0),
        ([], [READ], 39, 0),
        (["r"], [READ], 40, 1),
    ],
)
def test_judged_counts_what_the_found_mail_breaks(found: list[str], mail: list[Mail], at: int, wrong: int) -> None:
    assert len(judged(found, mail, at)) == wrong
