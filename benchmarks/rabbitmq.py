"""A RabbitMQ of its own: on loopback alone, in a folder of its own, ended by its own id."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from benchmarks.load_http import HOST
from benchmarks.servers import Process, ServerError, spawn
from tests.support.servers import MissingServer, answers, free_port

P = TypeVar("P", bound=Process)
VARIABLE = "ROUTER_TEST_RABBITMQ"
DEBIANS = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The one on PATH there changes to a user of its own, who may not write where others do."""
NODE = "bench@localhost"
START_SECONDS = 120.0
_INHERITED_NOT = ("RABBITMQ_", "ERL_")


class Broker(Process):
    """A ready RabbitMQ; its cost is that of all threads of its Erlang machine."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        super().__init__(process)
        self.port = port
        self._log = log

    @property
    def release(self) -> str:
        """Its own, and that of Erlang."""
        said = re.search(r"Starting (RabbitMQ \S+ on Erlang \S+)", self._log.read_text(encoding="utf-8"))
        return said[1] if said else "RabbitMQ"


def needed() -> Path:
    """The rabbitmq-server to measure; raises ``MissingServer`` where it or its client is not installed."""
    found = os.environ.get(VARIABLE) or (DEBIANS if DEBIANS.exists() else shutil.which("rabbitmq-server"))
    if found is None:
        raise MissingServer(
            "RabbitMQ", f"install Debian's package rabbitmq-server, or name the program with {VARIABLE}"
        )
    if find_spec("pika") is None:
        raise MissingServer("RabbitMQ's client", "install the Python package pika (requirements.lock has it)")
    return Path(found)


@contextlib.contextmanager
def broker(program: Path, directory: Path) -> Iterator[Broker]:
    """A fresh one in ``directory``, from ready to ended, with the service of names that Erlang has beside it."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="rabbitmq-") as folder:
        home = Path(folder).resolve()
        log, port, names_port = home / "log", free_port(), free_port()
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = {HOST}:{port}\n", encoding="ascii")
        environment = broker_environment(os.environ, home, names_port)
        names = ["epmd", "-address", HOST, "-port", str(names_port)]
        with (
            _listening(Process(spawn(names, environment, log)), names_port, log),
            _listening(Broker(spawn([str(program), "-noinput"], environment, log), port, log), port, log) as running,
        ):
            yield running
            running.check(log)


@contextlib.contextmanager
def _listening(process: P, port: int, log: Path) -> Iterator[P]:
    """``process``, from when it takes connections; ended when the block is left."""
    deadline = time.monotonic() + START_SECONDS
    try:
        while not answers(port):
            process.check(log)
            if time.monotonic() > deadline:
                raise ServerError(f"RabbitMQ is not ready after {START_SECONDS:g} s")
            time.sleep(0.05)
        yield process
    finally:
        process.end(gently=False)


def broker_environment(inherited: Mapping[str, str], home: Path, names_port: int) -> dict[str, str]:
    """Nothing of this machine's own RabbitMQ, every file in ``home``, and every port on loopback."""
    return {
        **{name: value for name, value in inherited.items() if not name.startswith(_INHERITED_NOT)},
        "HOME": str(home),  # the cookie of Erlang
        "ERL_EPMD_ADDRESS": HOST,
        "ERL_EPMD_PORT": str(names_port),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_ALLOW_INPUT": "1",  # without a shell around it, which would have the id
        "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(home / "none"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
    }
