"""The two set-ups: all on one machine over one file, and Redis, Firestore and Pub/Sub with two of each service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from router.auth.embedded import EmbeddedKey
from router.backends.embedded.schema import FILE_NAME
from router.clock import MICROSECONDS, SystemClock
from router.config import Config
from tests.chaos.damage import Bodies, Documents, Stored, Table
from tests.chaos.masters import Masters, masters
from tests.chaos.plan import Shape, Target
from tests.sim.mutants import ROOT
from tests.support.identity import identity_service
from tests.support.mutation import Mutant, put
from tests.support.production import COMMAND_SECONDS, SERVICES, Node, environment
from tests.support.redis_servers import SERVICE
from tests.support.servers import Server, firestore_emulator, pubsub_emulator, running

TOKEN_SECONDS, RENEW_SECONDS = 3600, 1800
API, SOCKETS = "API connections", "WebSocket connections"
CONNECTIONS = tuple(Target(name, "connections", ("cut", "drop", "hush")) for name in (API, SOCKETS))
NODE_FAULTS = ("kill", "stop", "pause")
PROJECT = "chaos"
SPANS = {
    "ROUTER_ONLINE__LEASE_SECONDS": "6",
    "ROUTER_ONLINE__HEARTBEAT_SECONDS": "2",
    "ROUTER_ONLINE__REPOKE_SECONDS": "3",
    "ROUTER_ONLINE__PUSH_AFTER_SECONDS": "8",
    "ROUTER_ONLINE__SWEEP_AFTER_SECONDS": "30",
    "ROUTER_SERVER__DRAIN_SECONDS": "5",
    "ROUTER_SERVER__LOG_LEVEL": "warning",
    "ROUTER_LIMITS__SEND_RATE": "0",
    "ROUTER_LIMITS__PAIR_RATE": "0",
    "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
    "ROUTER_LIMITS__WORK_RATE": "0",
}
"""Short ones: everything that is due after a while becomes due within a run, and so falls together with faults."""

SENTINEL = {
    "ROUTER_ONLINE__MODE": "sentinel",
    "ROUTER_ONLINE__SENTINEL_SERVICE": SERVICE,
    "ROUTER_ONLINE__DURABILITY": "write-through",
}


class Cluster:
    """The processes of a topology, by name, and how to reach them."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, str],
        folder: Path,
        shapes: Sequence[Shape],
        servers: Mapping[str, Server | Masters],
        stored: Mapping[str, Stored],
        sign: Callable[[str], str],
        notifier: Sequence[str],
    ) -> None:
        """``notifier``: the module, with arguments, that prints push commands as they come, one JSON object a line."""
        self.name = name
        self.settings = dict(settings)
        self.shapes = shapes
        self.servers = servers
        self.stored = stored
        self.notifier = notifier
        names = dict.fromkeys(name for shape in shapes for name in shape.nodes)
        self.nodes = {name: Node(name.partition(" ")[0], settings, folder) for name in names}
        self._sign = sign
        self._tokens: dict[str, tuple[int, str]] = {}

    def ports(self, *services: str) -> list[int]:
        return [node.port for node in self.nodes.values() if node.service in services]

    def token(self, user: str) -> str:
        """One that is good for half an hour at least."""
        now = SystemClock().now()
        until, token = self._tokens.get(user, (0, ""))
        if until < now:
            token = self._sign(user)
            self._tokens[user] = now + RENEW_SECONDS * MICROSECONDS, token
        return token

    def cli(self, *arguments: str) -> str:
        """What a command of the router printed that worked."""
        return self.run("router", *arguments)

    def run(self, *module: str) -> str:
        """What a module, run with its arguments, printed that worked."""
        command = [sys.executable, "-m", *module]
        done = subprocess.run(
            command, env=self.settings, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self) -> None:
        """All nodes."""
        for node in self.nodes.values():
            node.kill()


@contextmanager
def embedded(folder: Path, more: Mapping[str, str]) -> Iterator[Cluster]:
    """Over one file: ``serve`` alone, and the same as two of each service, of which one pipeline stands by."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_") and name != "PORT"}
    data = folder / "data"
    settings = {**inherited, **SPANS, "ROUTER_EMBEDDED__DATA_DIR": str(data), **more}
    key = EmbeddedKey.open(data)

    def sign(user: str) -> str:
        return key.sign(user, SystemClock().now(), TOKEN_SECONDS)

    stored = {table: Table(data / FILE_NAME, table) for table in ("hot", "cold", "ingress")}
    always = (*CONNECTIONS, *_copies(stored, 1))
    together, apart = ("serve",), _pairs()
    shapes = (
        Shape("one process", together, (*_targets(together), *always)),
        Shape("several processes", apart, (*_targets(apart), *always)),
    )
    notifier = ("router", "outbox", "--json", "--follow", "--take")
    cluster = Cluster("embedded", settings, folder, shapes, {}, stored, sign, notifier)
    with _ending(cluster):
        yield cluster


@contextmanager
def production(folder: Path, more: Mapping[str, str]) -> Iterator[Cluster]:
    """Real servers. Redis is a master with replicas under a sentinel, which has it replaced when it is killed or frozen
    for a second; it takes itself for the master when it thaws, until it is told. The emulators keep all in memory, and
    are only paused."""
    with ExitStack() as stack:
        redis = stack.enter_context(masters(folder))
        firestore, pubsub = firestore_emulator(folder / "firestore"), pubsub_emulator(folder / "pubsub")
        for server in (firestore, pubsub):
            stack.enter_context(running(server))
        servers: dict[str, Server | Masters] = {"redis": redis, "firestore": firestore, "pubsub": pubsub}
        identity = stack.enter_context(identity_service(folder))
        common = environment(folder, redis.watcher, firestore, pubsub, identity, PROJECT)
        settings = {**common, **SPANS, **SENTINEL, **more}
        defaults = Config()
        stored: dict[str, Stored] = {
            "hot": Bodies(redis.master, defaults.online.key_prefix),
            "cold": Documents(firestore, PROJECT, f"{defaults.cold.collection}-messages"),
        }
        nodes = _pairs()
        targets = (
            *_targets(nodes),
            Target("redis", "redis", ("kill", "kill", "pause", "pause")),
            Target("firestore", "firestore", ("pause", "pause")),
            Target("pubsub", "pubsub", ("pause", "pause")),
            *CONNECTIONS,
            *_copies(stored, 2),
        )
        shapes = (Shape("two of each", nodes, targets),)
        notifier = ("tests.chaos.notifier",)
        cluster = Cluster("production", settings, folder, shapes, servers, stored, identity.token, notifier)
        cluster.cli("setup")
        cluster.run(*cluster.notifier, "subscribe")
        with _ending(cluster):
            yield cluster


TOPOLOGIES = {"embedded": embedded, "production": production}
"""Each takes a folder, and what else is to be in the environment of all its processes."""


def broken(folder: Path, mutant: Mutant) -> dict[str, str]:
    """With this in its environment, a process runs a router that has the bug ``mutant``."""
    shutil.copytree(ROOT / "router", folder / "router", ignore=shutil.ignore_patterns("__pycache__"))
    put(mutant, ROOT, folder)
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def _pairs() -> tuple[str, ...]:
    return tuple(f"{service} {number}" for service in SERVICES for number in (1, 2))


def _targets(nodes: Sequence[str]) -> list[Target]:
    return [Target(name, name.partition(" ")[0], NODE_FAULTS) for name in nodes]


def _copies(stored: Iterable[str], times: int) -> list[Target]:
    """``times``: how often each is damaged while each process is killed once."""
    return [Target(name, name, times * ("damage",)) for name in stored]


@contextmanager
def _ending(cluster: Cluster) -> Iterator[None]:
    """What still runs at the end is killed by its own id."""
    try:
        yield
    finally:
        cluster.kill()
