"""How processes wake one another."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from router.backends.embedded.signals import Signals, run_directory
from router.errors import DataDirError

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0
LISTENER = """
import asyncio, sys
from pathlib import Path
from router.backends.embedded.signals import Signals

async def main():
    async with Signals(Path(sys.argv[1])) as signals:
        event = signals.wakes("work")
        pokes = signals.pokes("other")
        first = asyncio.ensure_future(anext(pokes))
        await asyncio.sleep(0)
        print("listening", flush=True)
        await event.wait()
        print("woken", flush=True)
        users = set(await first)
        while len(users) < int(sys.argv[2]):
            users.update(await anext(pokes))
        print(len(users), flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def signals(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Signals]:
    del anyio_backend
    async with Signals(tmp_path) as opened:
        yield opened


@pytest.fixture
def short() -> Iterator[Path]:
    """A data directory whose path leaves room for sockets, however deep pytest's own are."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(EVENT_SECONDS):
        return (await process.stdout.readline()).decode().strip()


async def listener(tmp_path: Path, users: int) -> asyncio.subprocess.Process:
    command = [sys.executable, "-c", LISTENER, str(tmp_path), str(users)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert await line(process) == "listening"
    return process


async def test_another_process_is_woken_and_poked_through_full_buffers(signals: Signals, tmp_path: Path) -> None:
    """More pokes than a socket's buffer holds: the sender never waits, and every user arrives."""
    process = await listener(tmp_path, 20_000)
    for number in range(20_000):
        signals.poke("other", [f"urn:sm:user:{number}"])
    signals.notify("work")
    assert await line(process) == "woken"
    assert await line(process) == "20000"
    assert await process.wait() == 0
    assert signals.dropped == 0
    assert list(run_directory(tmp_path).iterdir()) == []


async def test_dead_listeners_are_forgotten_and_dead_nodes_are_told_of(signals: Signals, tmp_path: Path) -> None:
    process = await listener(tmp_path, 1)
    process.kill()
    await process.wait()
    assert len(list(run_directory(tmp_path).iterdir())) == 2
    signals.notify("work")
    signals.poke("other", ["urn:sm:user:bob"])
    signals.poke("never there", ["urn:sm:user:bob"])
    await asyncio.sleep(0)
    assert signals.dead_nodes() == ["other"], "until somebody has ended its presence"
    signals.forget_node("other")
    assert list(run_directory(tmp_path).iterdir()) == []
    assert signals.dead_nodes() == []


async def test_a_node_that_listens_or_has_gone_is_not_dead(signals: Signals, tmp_path: Path) -> None:
    process = await listener(tmp_path, 1)
    assert signals.dead_nodes() == []
    signals.notify("work")
    signals.poke("other", ["urn:sm:user:bob"])
    await process.wait()
    assert signals.dead_nodes() == []


async def test_a_signal_that_cannot_be_sent_is_left_to_the_sweeper(signals: Signals, tmp_path: Path) -> None:
    """Whatever the system says: what was routed is routed, and its poke is only a hint."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as odd:
        odd.bind(str(run_directory(tmp_path) / "poke-odd"))
        signals.poke("odd", ["a", "b"])
    assert signals.dropped == 2
    process = await listener(tmp_path, 1)
    signals.notify("work")
    signals.poke("other", ["urn:sm:user:bob"])
    assert [await line(process) for _ in range(2)] == ["woken", "1"]
    await process.wait()


async def test_listeners_in_this_process_are_served_in_memory(signals: Signals) -> None:
    event, pokes = signals.wakes("work"), signals.pokes("here")
    waiting = asyncio.ensure_future(anext(pokes))
    await asyncio.sleep(0)
    signals.notify("work")
    signals.poke("here", ["a", "b"])
    assert event.is_set()
    assert await waiting == ["a", "b"]


def test_a_deep_directory_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    directory = run_directory(deep)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(str(directory)) < 70
    directory.chmod(0o755)
    with pytest.raises(DataDirError):
        run_directory(deep)
    directory.rmdir()


def test_a_directory_that_was_opened_to_a_group_is_closed_again(short: Path) -> None:
    """The kubelet makes all that is on a volume with fsGroup writable for the group, at each start of the pod."""
    run_directory(short).chmod(0o2770)
    directory = run_directory(short)
    assert directory == short / "run"
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_file_system_without_modes_has_its_sockets_elsewhere(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a host's folder is shared with a virtual machine: all is 0777, and chmod does nothing or fails."""
    (short / "run").mkdir()
    (short / "run").chmod(0o777)
    chmod = Path.chmod

    def refuse(path: Path, mode: int) -> None:
        if path == short / "run":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    directory = run_directory(short)
    assert directory.parent == Path(tempfile.gettempdir())
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.rmdir()


def test_a_file_system_without_sockets_has_them_elsewhere(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(socket, "socket", Refusing)
    directory = run_directory(short)
    assert directory.parent == Path(tempfile.gettempdir())
    directory.rmdir()


def test_a_directory_of_somebody_else_is_refused(short: Path) -> None:
    (short / "run").symlink_to(short)
    with pytest.raises(DataDirError, match="nobody else"):
        run_directory(short)
