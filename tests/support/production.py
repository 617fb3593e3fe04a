"""The production topology as real processes: Redis, both emulators, an identity service, and two of each service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from tests.support import forks
from tests.support.identity import Identity
from tests.support.servers import Guard, Server, free_port

START_SECONDS = 60.0
STOP_SECONDS = 40.0
COMMAND_SECONDS = 120.0
SERVICES = ("serve-api", "serve-ws", "process")


class Node:
    """One service on ports that stay the same when it is started anew."""

    def __init__(self, service: str, environment: Mapping[str, str], folder: Path, admin_port: int = 0) -> None:
        """``admin_port``: 0 has the system choose at each start. One that is kept may be somebody else's by then."""
        self.service = service
        self.port, self.admin_port = free_port(), admin_port
        ports = {"PORT": str(self.port), "ROUTER_SERVER__ADMIN_PORT": str(self.admin_port)}
        self._environment = {**environment, **ports}
        self._log = folder / f"{service}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def start(self) -> None:
        """Begin to start; ``wait`` returns when it is ready."""
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "router", self.service]
            # A session of its own: the guard, and no Ctrl-C, ends what this process leaves behind.
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        self._release()
        self._guard = Guard(self._process.pid)

    def wait(self) -> None:
        """Return when it says that it is ready."""
        assert self._process is not None, "it was never started"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"{self.service} ended: {self.said()}"
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=20).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{self.service} did not become ready: {self.said()}")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._release()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on where it was frozen."""
        self._signal(signal.SIGCONT)

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def ended(self) -> int | None:
        """The exit code of one that was started and runs no more."""
        return None if self._process is None else self._process.poll()

    def _signal(self, number: int) -> None:
        assert self._process is not None, "it was never started"
        self._process.send_signal(number)

    def _release(self) -> None:
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def log(self) -> bytes:
        """All that it has said, in all its lives."""
        return self._log.read_bytes() if self._log.exists() else b""

    def said(self) -> str:
        """The end of its log."""
        return self.log()[-3000:].decode(errors="replace")


class Production:
    """Two nodes of each service over the same servers."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.nodes = {
            service: [Node(service, environment, folder, free_port()) for _ in range(2)] for service in SERVICES
        }

    def ports(self, service: str) -> Sequence[int]:
        return [node.port for node in self.nodes[service]]

    def all(self) -> list[Node]:
        return [node for nodes in self.nodes.values() for node in nodes]

    def cli(self, *arguments: str) -> str:
        """What a command printed that worked."""
        done = forks.run(arguments, self.environment, timeout=COMMAND_SECONDS)
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout.decode()


def environment(
    folder: Path, redis: Server, firestore: Server, pubsub: Server, identity: Identity, project: str
) -> dict[str, str]:
    """The configuration of all processes; spans are short, so that a test need not wait for long ones."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_") and name != "PORT"}
    return {
        **inherited,
        "GOOGLE_CLOUD_PROJECT": project,
        "PUBSUB_EMULATOR_HOST": pubsub.address,
        "FIRESTORE_EMULATOR_HOST": firestore.address,
        "ROUTER_AUTH__IDENTITY_SERVICE_URL": identity.url,
        "ROUTER_INGRESS__KIND": "pubsub",
        # The emulator gives the ordering keys of a stream that died to nobody else; the service does.
        "ROUTER_INGRESS__PULLS": "4",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "0123456789abcdef0123456789abcdef",
        "ROUTER_ONLINE__KIND": "redis",
        "ROUTER_ONLINE__URL": f"redis://{redis.address}/0",
        "ROUTER_ONLINE__LEASE_SECONDS": "6",
        "ROUTER_ONLINE__HEARTBEAT_SECONDS": "2",
        "ROUTER_ONLINE__REPOKE_SECONDS": "3",
        "ROUTER_ONLINE__PUSH_AFTER_SECONDS": "8",
        "ROUTER_ONLINE__SWEEP_AFTER_SECONDS": "30",
        "ROUTER_COLD__KIND": "firestore",
        "ROUTER_PUSH__KIND": "pubsub",
        "ROUTER_LIMITS__SEND_RATE": "0",
        "ROUTER_LIMITS__PAIR_RATE": "0",
        "ROUTER_LIMITS__OUTBOUND_BYTES": "0",
        "ROUTER_LIMITS__WORK_RATE": "0",
        # Nothing is to be kept on this machine: a service that tried would fail.
        "ROUTER_EMBEDDED__DATA_DIR": "/dev/null/nowhere",
        "ROUTER_SERVER__LOG_LEVEL": "warning",
    }


@contextmanager
def production(folder: Path, settings: Mapping[str, str]) -> Iterator[Production]:
    """The whole topology, set up and ready; what still runs at the end is killed by its own id."""
    topology = Production(folder, settings)
    topology.cli("setup")
    with ExitStack() as stack:
        for node in topology.all():
            stack.callback(node.kill)
            node.start()
        for node in topology.all():
            node.wait()
        yield topology
