"""Lets the processes that share a data directory wake one another, by Unix datagrams, without polling.

Each listener binds one socket in ``<data_dir>/run``: ``wake-<channel>-<random>`` or ``poke-<node>``. Listeners in the
same process get their signals in memory. A signal is only a hint, and may get lost: a consumer reads its table before
it waits, and a sweeper repeats pokes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from router.errors import DataDirError

MAX_PATH_BYTES = 100
"""A little less than the shortest ``sun_path`` of the supported systems (104 on macOS)."""
DATAGRAM_BYTES = 32 * 1024
RETRY_SECONDS = 0.005
MAX_WAITING_USERS = 100_000
"""Pokes kept for a listener that does not read; further ones are dropped, and a sweeper repeats them."""
_WAKE = b"\x00"
POKE = "poke-"


class Signalling(Protocol):
    """What the components need of ``Signals``."""

    def wakes(self, channel: str) -> asyncio.Event: ...

    def notify(self, channel: str) -> None: ...

    def pokes(self, node: str) -> AsyncIterator[list[str]]: ...

    def poke(self, node: str, users: Sequence[str]) -> None: ...


class Nodes(Protocol):
    """Knows which nodes of a data directory were killed."""

    def dead_nodes(self) -> list[str]: ...

    def forget_node(self, node: str) -> None: ...


class Signals:
    """The signals of one data directory, as an async context manager. Raises ``DataDirError``."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = run_directory(data_dir)
        self._wakes: dict[str, asyncio.Event] = {}
        self._pokes: dict[str, asyncio.Queue[list[str]]] = {}
        self._own: dict[Path, socket.socket] = {}
        self._notified: set[str] = set()
        self._waiting: dict[Path, dict[str, None]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self.dropped = 0
        """How many pokes were dropped."""

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._retry is not None:
            self._retry.cancel()
        for path, own in self._own.items():
            self._loop.remove_reader(own.fileno())
            own.close()
            path.unlink(missing_ok=True)
        self._sender.close()

    def dead_nodes(self) -> list[str]:
        """The nodes whose processes were killed: their sockets still exist, and no process reads them."""
        paths = self._others(POKE)
        return [path.name.removeprefix(POKE) for path in paths if _is_dead(path)] if paths else []

    def heard(self) -> bool:
        """Whether another process listens: one that routes, or one that holds connections."""
        return any(not _is_dead(path) for path in self._others(""))

    def forget_node(self, node: str) -> None:
        """Remove the socket of a dead node, whose presence the caller has ended."""
        (self._directory / f"{POKE}{node}").unlink(missing_ok=True)

    def wakes(self, channel: str) -> asyncio.Event:
        """An event that each ``notify`` of ``channel`` sets; clear it, look for work, then wait."""
        event = self._wakes.get(channel)
        if event is None:
            event = self._wakes[channel] = asyncio.Event()
            self._bind(f"wake-{channel}-{secrets.token_hex(8)}", lambda _: event.set())
        return event

    def notify(self, channel: str) -> None:
        """Tell every listener of ``channel`` that there is work; calls in one turn of the loop send one signal."""
        if (event := self._wakes.get(channel)) is not None:
            event.set()
        if channel not in self._notified:
            self._notified.add(channel)
            self._loop.call_soon(self._notify_others, channel)

    def _notify_others(self, channel: str) -> None:
        self._notified.discard(channel)
        if self._sender.fileno() >= 0:
            for path in self._others(f"wake-{channel}-"):
                self._send(path, _WAKE)

    async def pokes(self, node: str) -> AsyncIterator[list[str]]:
        """The users to poke on ``node``, from this process and others."""
        arrived: asyncio.Queue[list[str]] = asyncio.Queue()
        self._pokes[node] = arrived
        self._bind(f"{POKE}{node}", lambda data: arrived.put_nowait(msgspec.json.decode(data, type=list[str])))
        while True:
            yield await arrived.get()

    def poke(self, node: str, users: Sequence[str]) -> None:
        """Deliver ``users`` to the listener of ``node``; never waits and never fails."""
        if (local := self._pokes.get(node)) is not None:
            local.put_nowait(list(users))
            return
        path = self._directory / f"{POKE}{node}"
        waiting = self._waiting.setdefault(path, {})
        room = MAX_WAITING_USERS - len(waiting)
        waiting.update(dict.fromkeys(users[:room]))
        self.dropped += max(0, len(users) - room)
        self._flush(path)

    def _bind(self, name: str, receive: Callable[[bytes], None]) -> None:
        path = self._directory / name
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.setblocking(False)
        try:
            own.bind(str(path))
            path.chmod(0o600)
        except OSError as error:
            own.close()
            raise DataDirError(f"cannot bind a socket in {self._directory}: {error.strerror}") from error
        self._own[path] = own
        self._loop.add_reader(own.fileno(), self._drain, own, receive)

    @staticmethod
    def _drain(own: socket.socket, receive: Callable[[bytes], None]) -> None:
        while True:
            try:
                data = own.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            receive(data)

    def _others(self, prefix: str) -> list[Path]:
        # List them each time: that takes some ten microseconds, and a cache could miss a listener.
        names = [name for name in os.listdir(self._directory) if name.startswith(prefix)]  # noqa: PTH208 - a hot path
        return [path for path in map(self._directory.joinpath, names) if path not in self._own]

    def _send(self, path: Path, data: bytes) -> bool:
        """Send the datagram; returns whether no second try is needed."""
        try:
            self._sender.sendto(data, str(path))
        except BlockingIOError:
            # The buffer is full. A wake-up needs no second try: the listener has others in its buffer.
            return data is _WAKE
        except (ConnectionRefusedError, FileNotFoundError):
            # Its process is dead; a new one binds a socket with another name. The socket of a node stays, since it
            # tells ``dead_nodes`` that the node is dead.
            if data is _WAKE:
                path.unlink(missing_ok=True)
        return True

    def _flush(self, path: Path) -> None:
        waiting = self._waiting[path]
        while waiting:
            users = _datagram(waiting)
            try:
                sent = self._send(path, msgspec.json.encode(users))
            except OSError:
                # For example without memory for it. Raise nothing: the mail is routed, and must not count as failed.
                self.dropped += len(waiting)
                break
            if not sent:
                if self._retry is None:
                    self._retry = self._loop.call_later(RETRY_SECONDS, self._flush_all)
                return
            for user in users:
                del waiting[user]
        del self._waiting[path]

    def _flush_all(self) -> None:
        self._retry = None
        for path in list(self._waiting):
            self._flush(path)


def _is_dead(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            pass  # it was removed just now, or the system lacks memory: the node may live
    return False


def _datagram(users: Iterable[str]) -> list[str]:
    """The first of ``users``, as many as fit into one datagram for certain."""
    taken: list[str] = []
    size = 0
    for user in users:
        size += 6 * len(user) + 3
        if size > DATAGRAM_BYTES and taken:
            break
        taken.append(user)
    return taken


def run_directory(data_dir: Path) -> Path:
    """The directory (0700) of the sockets, the same for all processes on ``data_dir``; raises ``DataDirError``.

    It is ``run`` in ``data_dir``, or one in the temporary directory if that path is too long for a socket, or if its
    file system has no sockets or no modes.
    """
    inside = data_dir / "run"
    longest = len(os.fsencode(inside)) + len("/wake-ingress-0123456789abcdef")
    if longest <= MAX_PATH_BYTES and _is_private(inside, close=True) and _holds_sockets(inside):
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"sealed-router-{os.getuid()}-{digest}"
    if not _is_private(outside, close=False):
        raise _others_may_enter(outside)
    return outside


def _is_private(directory: Path, *, close: bool) -> bool:
    """Make ``directory`` (0700) if it is missing; returns whether other users are kept out.

    ``close``: take away their access if they have it. Kubernetes gives the group of ``fsGroup`` access to everything on
    a volume at each start of a pod. Not for a directory in a shared one: it may already hold sockets of other users.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise DataDirError(f"cannot create {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise _others_may_enter(directory)
    if close and found.st_mode & 0o077:
        with contextlib.suppress(OSError):  # a file system without modes; the mode is checked below
            directory.chmod(0o700)
    return not directory.lstat().st_mode & 0o077


def _others_may_enter(directory: Path) -> DataDirError:
    return DataDirError(f"{directory} must be a directory of this user that nobody else can enter; remove it")


def _holds_sockets(directory: Path) -> bool:
    path = directory / f"try-{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True
