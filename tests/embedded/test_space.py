"""RACES 47: the volume fills. Sends are refused, and all else goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from router.backends.embedded import schema, space
from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.keeper import FOLD_SECONDS, free_pages
from router.backends.embedded.space import Space, Volume
from router.config import Config, Embedded
from router.errors import NoRoom, StorageFull, Unavailable
from router.messages import Connection, Queued
from tests.contract.stage import BOB, EVE, Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import Durability, EmbeddedStores
from tests.support.volumes import fill, small_volume

pytestmark = pytest.mark.anyio
MIB = 1 << 20
VOLUME_BYTES = 48 * MIB


class Disk:
    """A volume whose room a test chooses."""

    def __init__(self, free: int, total: int = 1 << 40) -> None:
        self.free = free
        self.total = total
        self.looks = 0

    def __call__(self, directory: Path) -> Volume:
        del directory
        self.looks += 1
        return Volume(self.total, self.free)


def refuses(space: Space) -> bool:
    try:
        space.check()
    except NoRoom:
        return True
    return False


def test_sends_are_refused_below_the_mark_until_there_is_an_eighth_more(tmp_path: Path) -> None:
    disk, clock = Disk(800 * MIB), ManualClock()
    space = Space(tmp_path, 800 * MIB, clock, look=disk)
    told = []
    for free in (800, 799, 800, 899, 900, 800, 799):
        disk.free = free * MIB
        clock.advance(1)
        with capture_logs() as logged:
            told.append((refuses(space), [line["log_level"] for line in logged]))
    assert told == [
        (False, []),
        (True, ["error"]),
        (True, []),
        (True, []),
        (False, ["warning"]),
        (False, []),
        (True, ["error"]),
    ]


def test_a_stream_of_sends_looks_ten_times_a_second(tmp_path: Path) -> None:
    disk, clock = Disk(1 << 39), ManualClock()
    space = Space(tmp_path, MIB, clock, look=disk)
    for _ in range(1000):
        clock.advance(0.001)
        space.check()
    assert 9 <= disk.looks <= 11


def test_a_volume_that_does_not_tell_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not report its free space"):
        Space(tmp_path / "gone", MIB, ManualClock()).check()


def test_the_mark_is_at_most_a_quarter_of_the_volume_and_may_be_none(tmp_path: Path) -> None:
    assert [space.mark_of(total * MIB, 256 * MIB) // MIB for total in (600, 1024, 100_000)] == [150, 256, 256]
    assert not refuses(Space(tmp_path, 0, ManualClock(), look=Disk(0)))


def test_free_pages_of_the_file_count_as_long_as_the_log_has_room(tmp_path: Path) -> None:
    """A file that gives nothing back must not refuse for good when it has been emptied."""

    def at(free: int, within: int) -> bool:
        return refuses(Space(tmp_path, 100, ManualClock(), within=lambda: within, look=Disk(free)))

    assert [at(60, 30), at(60, 40), at(25, 1000), at(24, 1000)] == [True, False, False, True]


def test_the_reserve_is_kept_while_there_is_room_and_given_up_when_there_is_none(tmp_path: Path) -> None:
    disk, clock = Disk(90 * MIB), ManualClock()
    reserved = Space(tmp_path, 80 * MIB, clock, look=disk)
    file = tmp_path / space.FILE_NAME
    for free, size in ((90, 0), (100, 10), (70, 10)):
        disk.free = free * MIB
        reserved.look()
        reserved.keep_file()
        assert (file.stat().st_size if file.exists() else 0) == size * MIB, free
    assert file.stat().st_blocks * 512 >= 10 * MIB, "it is not only its length"
    assert file.stat().st_mode & 0o077 == 0
    assert not reserved.give_up_file(), "that is not why a write failed"
    disk.free = 9 * MIB
    assert reserved.give_up_file()
    assert not file.exists()
    assert not reserved.give_up_file()


async def test_what_is_refused_is_said_and_nothing_else_is_refused(tmp_path: Path) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        backend = await opened(stage.factory, EmbeddedBackend)
        await stage.go("m1")
        backend.space._volume = Disk(0)
        stage.clock.advance(1)
        with pytest.raises(NoRoom):
            await stage.producer.publish([stage.message("m2")])
        assert await stage.ids() == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == []
        await stage.producer.probe()  # acknowledgements need this node: it stays ready


class SmallStores(EmbeddedStores):
    """``EmbeddedStores`` for messages of some size, with a reserve that fits the volume."""

    def config(self, *, cap: int = 0, durability: Durability = "online-store") -> Config:
        del cap
        config = super().config(cap=100_000, durability=durability)
        return config.model_copy(
            update={"embedded": Embedded(data_dir=config.embedded.data_dir, reserve_bytes=8 * MIB)}
        )


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path, VOLUME_BYTES):
        yield tmp_path


@pytest.fixture
async def stage(small: Path) -> AsyncIterator[Stage]:
    async with staged(SmallStores(small / "data"), ManualClock()) as stage:
        yield stage


async def send_until_refused(stage: Stage) -> int:
    """As one sender does at the highest rate: each message is routed to cold and announced."""
    for number in range(10_000):
        message = stage.message(f"m{number:05}", size=256 * 1024)
        stage.clock.advance(1)
        try:
            await stage.producer.publish([message])
        except NoRoom:
            return number
        await stage.go(message.id)
        await stage.cold.put([Queued(message, 10**18 + number, stage.clock.now())])
        await (await stage.factory.push_notifier()).publish([message])
    raise AssertionError("it was never refused")


async def test_one_sender_fills_the_volume_and_its_recipient_empties_it(stage: Stage, small: Path) -> None:
    keeper = (await opened(stage.factory, EmbeddedBackend)).keeper()
    accepted = await send_until_refused(stage)
    assert accepted > 10
    assert space.volume(small).free > 4 * MIB
    outbox, online = await stage.factory.outbox(), await stage.connect(EVE)
    database = (await opened(stage.factory, EmbeddedBackend))._database
    await database.write(lambda db: db.execute("DELETE FROM ingress").rowcount)  # it is routed
    assert await outbox.list(0, 1)
    await outbox.remove([entry.number for entry in await outbox.list(0, 5)])
    await stage.online.disconnect([online])
    while ids := await stage.ids():
        await stage.queue.acknowledge(BOB, ids)
    assert await outbox.list(0, 1) == []
    while (await opened(stage.factory, EmbeddedBackend)).space.short:
        stage.clock.advance(2)
        await keeper.look()
    await stage.producer.publish([stage.message("again")])
    assert (small / "data" / schema.FILE_NAME).stat().st_size < MIB


async def test_a_volume_that_somebody_else_fills_lets_mail_be_acknowledged(stage: Stage, small: Path) -> None:
    backend = await opened(stage.factory, EmbeddedBackend)
    keeper = backend.keeper()
    await keeper.look()
    assert (small / "data" / space.FILE_NAME).exists()
    for number in range(50):
        await stage.go(f"m{number}")
    await keeper.tidy()
    theirs = fill(small)
    assert space.volume(small).free == 0
    stage.clock.advance(1)
    with pytest.raises(NoRoom):
        await stage.producer.publish([stage.message("more")])
    for id_ in await stage.ids():  # each writes to the log, more than there is room for in all
        await stage.queue.acknowledge(BOB, [id_])
    await stage.online.connect(Connection(EVE, "phone", "n1", stage.clock.now()), 20)
    assert await stage.ids() == []
    assert not (small / "data" / space.FILE_NAME).exists(), "the reserve was needed"
    theirs.unlink()
    for _ in range(2):
        stage.clock.advance(FOLD_SECONDS)
        await keeper.look()
    await stage.producer.publish([stage.message("again")])
    assert (small / "data" / space.FILE_NAME).exists()


async def test_without_a_reserve_a_full_volume_is_told_and_nothing_is_lost(stage: Stage, small: Path) -> None:
    await stage.go("m1")
    await (await opened(stage.factory, EmbeddedBackend)).keeper().tidy()
    theirs = fill(small)
    assert space.volume(small).free == 0
    with pytest.raises((StorageFull, Unavailable)):
        await stage.queue.acknowledge(BOB, ["m1"])
    assert await stage.ids() == ["m1"]
    theirs.unlink()
    await stage.queue.acknowledge(BOB, ["m1"])
    assert await stage.ids() == []


async def test_a_router_starts_on_a_full_volume(small: Path) -> None:
    async with staged(SmallStores(small / "data"), ManualClock()) as stage:
        await stage.go("m1")
        await (await opened(stage.factory, EmbeddedBackend)).keeper().look()
    fill(small)
    async with staged(SmallStores(small / "data"), ManualClock()) as stage:
        await stage.queue.acknowledge(BOB, ["m1"])
        assert await stage.ids() == []


async def test_free_pages_are_given_back_in_steps(tmp_path: Path) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as stage:
        backend = await opened(stage.factory, EmbeddedBackend)
        database = backend._database
        message = stage.message("m", size=10 * MIB)
        await stage.cold.put([Queued(message, 1, 1)])
        await stage.cold.delete(BOB, ["m"])
        assert database.read(free_pages) > 2000
        steps = []
        database._writer.set_trace_callback(lambda said: steps.append(said) if said == "BEGIN IMMEDIATE" else None)
        keeper = backend.keeper()
        stage.clock.advance(FOLD_SECONDS)
        await keeper.look()
        assert database.read(free_pages) == 0
        assert len(steps) > 8
        assert (tmp_path / schema.FILE_NAME).stat().st_size < MIB
