"""What is saved is there whole, and listed once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from router.client import Received
from router.client.saving import Directory, UnsafeId

pytestmark = pytest.mark.anyio


def received(id_: str, size: int = 10) -> Received:
    return Received(id_, msgspec.Raw(b'{"recipientId":"%b"}' % (b"x" * size)))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_each_is_saved_whole_and_listed_once(tmp_path: Path) -> None:
    listed = list[str]()
    directory = Directory(tmp_path / "inbox", lambda message, path: listed.append(f"{message.id} {path.name}"))
    batch = [received("a"), received("b")]
    await directory.save(batch[:1])
    await directory.save(batch)
    assert listed == ["a a.json", "b b.json"]
    assert (tmp_path / "inbox" / "a.json").read_bytes() == bytes(batch[0].envelope)
    assert names(tmp_path / "inbox") == ["a.json", "b.json"]


async def test_another_process_that_saves_the_same_is_left_alone(tmp_path: Path) -> None:
    """Each writes a draft of its own, or one could put the other's half in place."""
    half = tmp_path / "a.part"
    half.write_bytes(b"half of it, by another process")
    await Directory(tmp_path, lambda message, path: None).save([received("a")])
    assert half.read_bytes() == b"half of it, by another process"
    assert names(tmp_path) == ["a.json", "a.part"]


@pytest.mark.parametrize("id_", ["", "../x", "a/b", "x" * 129, "a.b"])
async def test_an_id_that_could_be_a_path_is_refused(tmp_path: Path, id_: str) -> None:
    with pytest.raises(UnsafeId):
        await Directory(tmp_path, lambda message, path: None).save([received(id_)])
    assert names(tmp_path) == []
