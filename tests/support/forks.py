"""Commands of the router in processes of their own, without the half second in which each would import the router.

A process that has imported it all forks for each command. What the child then runs is ``python -m router`` from its
first line to the interpreter's end, with the arguments and environment that it is given. What an interpreter or a
library only looks at when it starts is the first process's: a command that is to find other such variables needs its
own, and gets it from ``run``.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from tests.support.servers import Guard

IMPORTED = ("router.cli.app", "router.factory", "router.service", "router.doctor.runner", "router.client", "rich.table")
GOOGLE = ("router.backends.firestore.backend", "router.backends.pubsub.backend", "router.backends.redis.backend")
FREE = (
    "ROUTER_", "PORT", "GOOGLE_CLOUD_PROJECT", "PUBSUB_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST",
    "PYTEST_", "PYTHONUNBUFFERED",
)  # fmt: skip
"""How the names begin of variables that nobody reads before a command runs, or that change nothing of what it says."""
REQUEST_BYTES = 1 << 20


def run(
    arguments: Sequence[str], environment: Mapping[str, str], *, stdin: bytes = b"", timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """``router`` with ``arguments``, to its end; raises ``TimeoutExpired`` after ``timeout`` s."""
    forks = shared("GOOGLE_CLOUD_PROJECT" in environment)
    other = {name for name, _ in environment.items() ^ forks.environment.items()}
    if not stdin and all(name.startswith(FREE) for name in other):
        return forks.run(arguments, environment, timeout=timeout)
    # An interpreter looks at some variables only when it starts, and libraries when they are imported.
    command = [sys.executable, "-m", "router", *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=timeout, check=False)


@cache
def shared(google: bool = False) -> Forks:
    """One for all commands of this process, which ends with it; another one for those that use Google's libraries."""
    made = Forks(GOOGLE if google else ())
    atexit.register(made.close)
    return made


class Forks:
    """The process that forks, which has imported ``more`` as well; ``close`` ends it."""

    def __init__(self, more: Sequence[str] = ()) -> None:
        self.environment = dict(os.environ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), *more],
                env=self.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._guard = Guard(self._server.pid)
        self._socket = ours

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """``router`` with ``arguments``, without input, to its end; raises ``TimeoutExpired`` after ``timeout`` s."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        file = tempfile.TemporaryFile
        with ours, theirs, file() as out, file() as err:
            request = json.dumps([list(arguments), dict(environment), str(Path.cwd())]).encode()
            descriptors = [end.fileno() for end in (theirs, out, err)]
            ours.settimeout(timeout)
            socket.send_fds(self._socket, [request], descriptors)
            theirs.close()
            child = int(ours.recv(64))
            try:
                code = int(ours.recv(64))
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["router", *arguments], timeout) from None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(["router", *arguments], code, out.read(), err.read())

    def close(self) -> None:
        """No further command; those that run end by themselves."""
        self._socket.close()
        self._server.wait()
        self._guard.release()


def serve(requests: socket.socket, more: Sequence[str]) -> None:
    """Fork for each of ``requests``; returns in the process that is to be the command, or at the end of requests."""
    for name in (*IMPORTED, *more):
        __import__(name)
    gc.freeze()  # a command that ends looks at its own objects, and copies no pages of these
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for a command
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        if not request:
            raise SystemExit(0)
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, *streams = descriptors
    child = os.fork()
    if child:
        _wait(child, told)
    os.close(told)
    arguments, environment, folder = json.loads(request)
    for number, descriptor in enumerate(streams, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[:] = ["router", *arguments]


def _wait(child: int, told: int) -> NoReturn:
    """Tell the id of the command, then how it ended."""
    os.write(told, str(child).encode())
    _, status = os.waitpid(child, 0)
    os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    runpy.run_module("router", run_name="__main__", alter_sys=True)
