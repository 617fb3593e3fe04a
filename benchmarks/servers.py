"""Starting, watching and ending the servers under test: the router, and the floor. Linux only (``/proc``)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from benchmarks import floor
from benchmarks.load_http import HOST
from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from router.data_dir import SIGNING_KEY, key_file
from tests.support.servers import free_port

Kind = Literal["floor", "router"]

TOKEN_SECONDS = 24 * 3600
START_SECONDS = 20.0
STOP_SECONDS = 30.0
SETTLE_SECONDS = 120.0
_QUIET_SECONDS = 0.2
_QUIET_CPU_SECONDS = 0.005


class ServerError(Exception):
    """A server under test did not start, or ended on its own."""


class Measured(Protocol):
    """What has a cost."""

    def cpu_seconds(self) -> float:
        """Of all its processes so far."""

    def written_bytes(self) -> int:
        """That all its processes had the system write to a disk so far."""

    def settle(self) -> None:
        """Return once it is idle."""


class Target(Measured, Protocol):
    """What the load needs of a router or a floor that it is put on."""

    @property
    def port(self) -> int:
        """Of the HTTP API."""

    @property
    def sockets_port(self) -> int: ...

    def token(self, user: str, /) -> str: ...


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far."""
    # The clock that clock_getcpuclockid(3) gives for a process: finer than the 10 ms steps of /proc.
    return time.clock_gettime((~pid << 3) | 2)


def written_bytes(pid: int) -> int:
    """What a process had the system write to a disk so far: whole pages of memory, once for each time that it was not
    written yet."""
    (line,) = (line for line in Path(f"/proc/{pid}/io").read_text("ascii").splitlines() if line.startswith("write_b"))
    return int(line.split()[1])


class Process:
    """A child process and what it costs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        return cpu_seconds(self.pid)

    def written_bytes(self) -> int:
        """That it had the system write to a disk so far."""
        return written_bytes(self.pid)

    def memory(self) -> int:
        """Resident bytes now."""
        return self._resident("VmRSS")

    def most_memory(self) -> int:
        """Resident bytes at most so far."""
        return self._resident("VmHWM")

    def _resident(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise ServerError(f"process {self.pid} has ended")

    def settle(self) -> None:
        """Return once it is idle: whatever was left to do after the last answer is done."""
        until_idle([self])

    def finish(self) -> None:
        """Wait until it ends by itself; raises ``ServerError`` where it takes too long or fails."""
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"a command has not ended after {STOP_SECONDS:g} s") from error
        if code:
            raise ServerError(f"a command ended with {code}")

    def end(self, *, gently: bool) -> None:
        """End it by its own id; gently is SIGTERM first."""
        if gently and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def check(self, log: Path) -> None:
        """Raise ``ServerError`` where it has ended."""
        if (code := self._process.poll()) is not None:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ServerError(f"a server ended with {code}:\n{tail}")


def until_idle(processes: Sequence[Process]) -> None:
    """Return once all of them are; raises ``ServerError`` where that takes too long."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before, quiet = [process.cpu_seconds() for process in processes], 0
    while quiet < 2:
        if time.monotonic() > deadline:
            raise ServerError(f"a server is still busy after {SETTLE_SECONDS:g} s")
        time.sleep(_QUIET_SECONDS)
        now = [process.cpu_seconds() for process in processes]
        used = max(after - earlier for earlier, after in zip(before, now, strict=True))
        quiet = quiet + 1 if used <= _QUIET_CPU_SECONDS else 0
        before = now


class Server(Process):
    """A server under test that is ready."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        token: Callable[[str], str],
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        super().__init__(process)
        self.port = self.sockets_port = port
        self._token = token
        self.environment = environment
        """With this, a ``router`` command works on the same data."""
        self.log = log

    def cpu_seconds(self) -> float:
        """Of its workers too, where it has some."""
        return super().cpu_seconds() + sum(cpu_seconds(pid) for pid in self._workers())

    def written_bytes(self) -> int:
        """Of its workers too, where it has some."""
        return super().written_bytes() + sum(written_bytes(pid) for pid in self._workers())

    def _workers(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in children.split()]

    @property
    def admin_port(self) -> int:
        return int(self.environment["ROUTER_SERVER__ADMIN_PORT"])

    def token(self, user: str) -> str:
        """A token of ``user``."""
        return self._token(user)


class Bench:
    """Makes servers in a directory of its own on a real disk, and tokens that all of its routers trust."""

    def __init__(self, directory: Path, *, quick: bool, rounds: int, profiles: Path | None = None) -> None:
        self.directory = directory
        self.quick = quick
        self.rounds = rounds
        self.profiles = profiles
        self._profiled = 0
        self._key = EmbeddedKey.open(directory)
        self._tokens: dict[str, str] = {}

    def count(self, full: int) -> int:
        """``full``, or a fifth of it in a quick run."""
        return full // 5 if self.quick else full

    def token(self, user: str) -> str:
        """A token of ``user``, made once."""
        if user not in self._tokens:
            self._tokens[user] = self._key.sign(user, SystemClock().now(), TOKEN_SECONDS)
        return self._tokens[user]

    @contextlib.contextmanager
    def data_dir(self, *, with_key: bool = True) -> Iterator[Path]:
        """A new data directory, ``with_key`` one whose router trusts ``token``."""
        with tempfile.TemporaryDirectory(dir=self.directory) as home:
            data = Path(home) / "data"
            data.mkdir(mode=0o700)
            if with_key:
                shutil.copy(key_file(self.directory, SIGNING_KEY), data / SIGNING_KEY)
            yield data

    @contextlib.contextmanager
    def server(self, kind: Kind, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
        """A fresh server, from ready to ended. Routers have no rate limit, and ``settings`` beside that."""
        with self.data_dir() as data:
            port = free_port()
            environment = router_environment(data, port, settings)
            command = [sys.executable, *self._profiling(kind), "-m", *_module(kind, port)]
            log = data.parent / "log"
            process = spawn(command, environment, log)
            token = floor.token if kind == "floor" else self.token
            server = Server(process, port, token, environment, log)
            try:
                wait_until_ready(server, port, log)
                yield server
                server.check(log)
            finally:
                server.end(gently=self.profiles is not None)

    def _profiling(self, kind: Kind) -> Sequence[str]:
        if self.profiles is None:
            return ()
        self._profiled += 1
        return ("-m", "cProfile", "-o", str(self.profiles / f"{self._profiled:02d}-{kind}.prof"))


def _module(kind: Kind, port: int) -> list[str]:
    return ["benchmarks.floor", str(port)] if kind == "floor" else ["router", "serve"]


def router_environment(data: Path, port: int, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what it says of routers, and with what this one is to be."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_") and name != "PORT"}
    return {
        **inherited,
        "ROUTER_EMBEDDED__DATA_DIR": str(data),
        "ROUTER_SERVER__API_PORT": str(port),
        "ROUTER_SERVER__WS_PORT": str(free_port()),
        "ROUTER_SERVER__ADMIN_PORT": str(free_port()),
        "ROUTER_SERVER__LOG_FORMAT": "json",
        "ROUTER_LIMITS__SEND_RATE": "0",
        "ROUTER_LIMITS__PAIR_RATE": "1e9",
        "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
        "ROUTER_LIMITS__INBOUND_BYTES": "0",
        "ROUTER_LIMITS__WORK_RATE": "1e9",
        **(settings or {}),
    }


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start ``command`` with its output in ``log``."""
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def wait_until_ready(process: Process, port: int, log: Path) -> None:
    """Return once ``/readyz`` is answered 200; asks every 2 ms. Raises ``ServerError``."""
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(port):
        process.check(log)
        if time.monotonic() > deadline:
            raise ServerError(f"a server is not ready after {START_SECONDS:g} s")
        time.sleep(0.002)


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
