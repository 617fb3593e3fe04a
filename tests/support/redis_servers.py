"""Redis as it is run in production: a cluster of three masters, and a master under sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.support.servers import READY_SECONDS, Server, free_port, redis_program, redis_server, running

SLOTS = 16_384
SERVICE = "mymaster"
SYNC_AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""For a master: it would wait for more replicas first."""
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "redis.md"
USER_PASSWORD = "as-documented"


def client(server: Server) -> Any:
    """A plain client for what a test does to a server by hand."""
    host, port = server.address.split(":")
    return Redis(host=host, port=int(port), socket_timeout=5)


def until(condition: Callable[[], object]) -> None:
    """Return when ``condition`` holds; servers that cannot be asked do not hold it."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            if condition():
                return
        except RedisError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError("the servers did not come to terms")
        time.sleep(0.05)


def documented_user(url: str, servers: Sequence[Server], prefix: str = "router", which: int = 0) -> str:
    """``url`` with the user of the documentation, whom ``servers`` know then; ``which`` of its lines: 1 is for
    sentinels."""
    rights = [line for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines() if line.startswith("ACL SETUSER")]
    command = rights[which].replace("PASSWORD", USER_PASSWORD).replace("router:*", f"{prefix}*").split()
    for server in servers:
        asking = client(server)
        asking.execute_command(*command)
        asking.close()
    return url.replace("://", f"://router:{USER_PASSWORD}@")


class Cluster:
    """Masters that share the slots."""

    def __init__(self, nodes: list[Server], buses: list[int]) -> None:
        """``buses``: the ports by which the nodes talk to one another."""
        self.nodes = nodes
        self._buses = buses
        self.url = "redis://" + ",".join(node.address for node in nodes)

    def join(self) -> None:
        """Make one cluster of the nodes."""
        share = SLOTS // len(self.nodes)
        first, *others = self.nodes
        for index, node in enumerate(self.nodes):
            last = SLOTS - 1 if node is self.nodes[-1] else (index + 1) * share - 1
            client(node).execute_command("CLUSTER", "ADDSLOTSRANGE", index * share, last)
            client(node).execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for node in others:
            client(node).execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, self._buses[0])
        until(lambda: all(self._is_whole(node) for node in self.nodes))

    def follow(self, replica: Server, master: Server) -> None:
        """``replica``, a server that knows nobody yet, joins as the replica of ``master``."""
        name = client(master).execute_command("CLUSTER", "MYID").decode()
        joining = client(replica)
        joining.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port, self._buses[self.nodes.index(master)])
        until(lambda: joining.execute_command("CLUSTER", "REPLICATE", name))
        until(lambda: client(master).info("replication").get("slave0", {}).get("state") == "online")

    def _is_whole(self, node: Server) -> bool:
        info = client(node).execute_command("CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == len(self.nodes))


def cluster_node(folder: Path, bus: int, program: Path | None = None) -> Server:
    """A server that is to join a cluster; the nodes talk to one another by their port ``bus``."""
    options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
    options += ["--cluster-require-full-coverage", "no", "--appendfsync", "always", *SYNC_AT_ONCE]
    return redis_server(folder, *options, program=program)


@contextmanager
def cluster(folder: Path, size: int = 3, program: Path | None = None) -> Iterator[Cluster]:
    """A cluster of ``size`` masters without replicas."""
    with ExitStack() as stack:
        nodes, buses = [], [free_port() for _ in range(size)]
        for number, bus in enumerate(buses):
            nodes.append(stack.enter_context(running(cluster_node(folder / f"node{number}", bus, program))))
        made = Cluster(nodes, buses)
        made.join()
        yield made


class Watched:
    """A master, its replica, and the sentinels that watch them."""

    def __init__(self, master: Server, replica: Server, sentinels: list[Server]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels
        self.url = "redis://" + ",".join(one.address for one in sentinels)

    def ready(self) -> None:
        """Return when the replica follows and the sentinels know of it and of one another."""
        until(lambda: client(self.replica).info("replication")["master_link_status"] == "up")
        until(lambda: all(self._knows(one) for one in self.sentinels))

    def _knows(self, one: Server) -> bool:
        (found,) = client(one).sentinel_masters().values()
        return bool(found["num-slaves"] == 1 and found["num-other-sentinels"] == len(self.sentinels) - 1)

    def failed_over(self) -> None:
        """Return when the sentinels have made the replica the master."""
        until(lambda: client(self.replica).info("replication")["role"] == "master")
        until(lambda: all(self._names(one) == self.replica.port for one in self.sentinels))

    def _names(self, one: Server) -> int:
        address = client(one).sentinel_get_master_addr_by_name(SERVICE)
        return int(address[1])


@contextmanager
def watched(folder: Path, sentinels: int = 3) -> Iterator[Watched]:
    """A master with one replica under ``sentinels``, which fail over within seconds."""
    with ExitStack() as stack:
        master = stack.enter_context(running(redis_server(folder / "master", *SYNC_AT_ONCE)))
        follow = ("--replicaof", "127.0.0.1", str(master.port))
        replica = stack.enter_context(running(redis_server(folder / "replica", *follow)))
        watchers = [
            stack.enter_context(running(sentinel(folder / f"sentinel{number}", master, sentinels)))
            for number in range(sentinels)
        ]
        made = Watched(master, replica, watchers)
        made.ready()
        yield made


def sentinel(folder: Path, master: Server, count: int = 1, more: str = "") -> Server:
    """One of ``count`` sentinels of ``master``; ``more``: lines of its configuration."""
    port = free_port()
    folder.mkdir(parents=True)
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {count // 2 + 1}\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 3000\n{more}\n"
    )
    return Server([str(redis_program()), str(configuration), "--sentinel"], port, folder)
