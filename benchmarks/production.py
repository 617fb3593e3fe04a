"""The production set-up: Redis, both of Google's emulators, an identity service, and one process of each service."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop
from redis import Redis

from benchmarks.emulators import warm_up
from benchmarks.load_http import HOST, LoadError
from benchmarks.servers import Process, ServerError, spawn, until_idle, wait_until_ready
from tests.support.identity import Identity, identity_service
from tests.support.servers import MissingServer, firestore_emulator, free_port, pubsub_emulator, redis_server, running
from tests.support.servers import Server as Backend

API, SOCKETS, PIPELINE = "serve-api", "serve-ws", "process"
LIBRARIES = ("redis", "hiredis", "grpcio", "protobuf")
PROJECT = "bench"
OPERATIONS = "router_firestore_operations_total"
SAID_LINES = 20
SETUP_SECONDS = 60.0
WARM_CALLS = 300
"""Before that, Firestore's emulator may take longer for the first fetch of a crowd than a router waits."""


class Node(Process):
    """One ready process of a service."""

    def __init__(self, process: subprocess.Popen[bytes], service: str, port: int, admin_port: int, log: Path) -> None:
        super().__init__(process)
        self.service = service
        self.port = port
        self.admin_port = admin_port
        self.log = log

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as the text format has them."""
        with urllib.request.urlopen(f"http://{HOST}:{self.admin_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def written(self) -> int:
        """Documents written to Firestore by this process, deleted ones included."""
        return round(self.metrics()[f'{OPERATIONS}{{operation="documents_written"}}'])


class Topology:
    """The running set-up; a ``Target`` of the load, whose cost is that of all router processes together."""

    def __init__(
        self, environment: Mapping[str, str], directory: Path, redis: Backend, identity: Identity, profiles: Path | None
    ) -> None:
        self.environment = environment
        """With this, a ``router`` command works on the same stores."""
        self.redis: Any = Redis(host=HOST, port=redis.port)
        self.nodes: list[Node] = []
        self._directory = directory
        self._identity = identity
        self._profiles = profiles
        self._tokens: dict[str, str] = {}
        self._own = contextlib.ExitStack()

    def pipeline(self) -> Node:
        """The one ``process``, started where there is none; it stays until ``close``.

        It is not started anew for each scenario, so that none of them pays for its start.
        """
        if not any(node.service == PIPELINE for node in self.nodes):
            self._own.enter_context(self.node(PIPELINE))
        return self.of(PIPELINE)

    def said(self) -> str:
        """The last warnings of each process that still runs."""
        logs = ((node.service, node.log.read_text(encoding="utf-8", errors="replace")) for node in self.nodes)
        found = ((service, line) for service, text in logs for line in text.splitlines() if '"info"' not in line)
        return "\n".join(f"{service}: {line}" for service, line in list(found)[-SAID_LINES:])

    def close(self) -> None:
        self._own.close()
        self.redis.close()

    def token(self, user: str, /) -> str:
        """A token of ``user``, made once."""
        if user not in self._tokens:
            self._tokens[user] = self._identity.token(user)
        return self._tokens[user]

    def of(self, service: str) -> Node:
        """The first node of ``service``."""
        return next(node for node in self.nodes if node.service == service)

    @property
    def port(self) -> int:
        return self.of(API).port

    @property
    def sockets_port(self) -> int:
        return self.of(SOCKETS).port

    def cpu_seconds(self) -> float:
        return sum(node.cpu_seconds() for node in self.nodes)

    def written_bytes(self) -> int:
        return sum(node.written_bytes() for node in self.nodes)

    def settle(self) -> None:
        """Return once every router process is idle."""
        self.check()
        until_idle(self.nodes)
        self.check()

    def check(self) -> None:
        """Raise ``ServerError`` where a process has ended."""
        for node in self.nodes:
            node.check(node.log)

    def count(self, name: str) -> int:
        """The samples whose names begin so, over all processes."""
        samples = (node.metrics().items() for node in self.nodes)
        return round(sum(value for found in samples for key, value in found if key.startswith(name)))

    def firestore(self, operation: str = "") -> int:
        """Firestore calls and documents so far, of one kind or of all."""
        wanted = f'"{operation}"' if operation else ""
        return self.count(f"{OPERATIONS}{{operation={wanted}")

    def redis_reads(self) -> int:
        """How often Redis has read something from a client: one for a pipeline that fits into 16 KiB."""
        return cast(int, self.redis.info("stats")["total_reads_processed"])

    @contextlib.contextmanager
    def node(self, service: str) -> Iterator[Node]:
        """One more ``service``, from ready to ended."""
        port, admin_port = free_port(), free_port()
        ports = {"PORT": str(port), "ROUTER_SERVER__ADMIN_PORT": str(admin_port)}
        log = self._directory / f"{service}-{port}.log"
        process = spawn(self._command(service), {**self.environment, **ports}, log)
        node = Node(process, service, port, admin_port, log)
        try:
            wait_until_ready(node, port, log)
            self.nodes.append(node)
            yield node
            node.check(log)
        finally:
            self.nodes = [other for other in self.nodes if other is not node]
            # Gently: what a pipeline holds goes back at once, and a profile is written.
            node.end(gently=True)

    def _command(self, service: str) -> Sequence[str]:
        if self._profiles is None:
            return (sys.executable, "-m", "router", service)
        profile = self._profiles / f"production-{service}-{len(self.nodes)}.prof"
        return (sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "router", service)

    def setup(self) -> None:
        """``router setup``; raises ``ServerError``."""
        command = [sys.executable, "-m", "router", "setup"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=SETUP_SECONDS, check=False
        )
        if done.returncode:
            raise ServerError(f"router setup ended with {done.returncode}:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def topology(directory: Path, profiles: Path | None = None) -> Iterator[Topology]:
    """Everything started and set up except ``process``, which scenarios ask for when they need it.

    Raises ``ServerError`` where a server is missing or does not start.
    """
    directory = directory.resolve()  # servers have folders of their own to run in
    with contextlib.ExitStack() as stack:
        try:
            redis = stack.enter_context(running(redis_server(directory / "redis")))
            firestore = stack.enter_context(running(firestore_emulator(directory / "firestore", WARM_CALLS)))
            pubsub = stack.enter_context(running(pubsub_emulator(directory / "pubsub")))
        except (MissingServer, AssertionError) as error:
            raise ServerError(str(error)) from error
        identity = stack.enter_context(identity_service(directory))
        emulators = {"FIRESTORE_EMULATOR_HOST": firestore.address, "PUBSUB_EMULATOR_HOST": pubsub.address}
        stack.enter_context(_environment(emulators))
        uvloop.run(warm_up(pubsub.address))
        made = Topology(_settings(redis, identity), directory, redis, identity, profiles)
        made.setup()
        stack.enter_context(made.node(API))
        stack.enter_context(made.node(SOCKETS))
        stack.callback(made.close)
        try:
            yield made
        except LoadError as error:
            raise LoadError(f"{error}\n{made.said()}") from error


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """``more`` in the environment of this process too: the stock is made by the same components as the routers'."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _settings(redis: Backend, identity: Identity) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_") and name != "PORT"}
    return {
        **inherited,
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "ROUTER_AUTH__IDENTITY_SERVICE_URL": identity.url,
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_INGRESS__PULLS": "8",  # the emulator's streams tick every 50 ms
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": secrets.token_hex(32),
        "ROUTER_ONLINE__KIND": "redis",
        "ROUTER_ONLINE__URL": f"redis://{redis.address}/0",
        "ROUTER_COLD__KIND": "firestore",
        "ROUTER_PUSH__KIND": "pubsub",
        "ROUTER_LIMITS__SEND_RATE": "0",
        "ROUTER_LIMITS__PAIR_RATE": "1e9",
        "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
        "ROUTER_LIMITS__INBOUND_BYTES": "0",
        "ROUTER_LIMITS__WORK_RATE": "1e9",
        # Nothing is to be kept on this machine: a service that tried would fail.
        "ROUTER_EMBEDDED__DATA_DIR": "/dev/null/nowhere",
        "ROUTER_SERVER__LOG_FORMAT": "json",
    }
