"""Redis as in production: a master, two replicas and a sentinel; what strikes "the Redis" strikes the master."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis.exceptions import RedisError

from tests.support.redis_servers import SERVICE, SYNC_AT_ONCE, client, sentinel, until
from tests.support.servers import Server, redis_server, running

OPTIONS = (
    "--maxmemory-policy", "noeviction", "--appendfsync", "always", *SYNC_AT_ONCE,
    "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10",
)  # fmt: skip
"""Synced before it answers, so that a kill loses nothing; and a master that its replicas have left takes nothing."""


class Masters:
    """Its state: which server was struck last."""

    def __init__(self, servers: list[Server], watcher: Server) -> None:
        self.watcher = watcher
        self._servers = servers
        self._struck: Server | None = None

    def master(self) -> Server | None:
        """The master; none while a failover is under way, or a replica does not follow it yet: then one that lags
        behind could be promoted."""
        try:
            port = int(client(self.watcher).sentinel_get_master_addr_by_name(SERVICE)[1])
            master = next(server for server in self._servers if server.port == port)
            found = client(master).info("replication")
        except RedisError:
            return None
        replicas = [value for name, value in found.items() if name.startswith("slave") and isinstance(value, dict)]
        online = sum(replica["state"] == "online" for replica in replicas)
        return master if found["role"] == "master" and online == len(self._servers) - 1 else None

    # What happens to the master happens to no one where there is none.

    def freeze(self) -> None:
        self._struck = self.master()
        if self._struck is not None:
            self._struck.freeze()

    def thaw(self) -> None:
        """Let it go on, but not in the middle of a failover: with a replica that nobody has told of the new master, it
        would take writes that Redis then drops."""
        if self._struck is not None:
            until(self._no_failover)
            self._struck.thaw()

    def _no_failover(self) -> bool:
        """Whether none has begun, or the other servers follow the new master."""
        state = client(self.watcher).sentinel_masters()[SERVICE]
        if self._struck is not None and state["port"] == self._struck.port:
            return not state["is_odown"]
        following = 0
        for server in self._servers:
            if server is not self._struck:
                found = client(server).info("replication")
                following += found["role"] == "slave" and found["master_port"] == state["port"]
        return following == len(self._servers) - 2

    def stop(self) -> None:
        self._struck = self.master()
        if self._struck is not None:
            self._struck.stop()

    def start(self) -> None:
        if self._struck is not None:
            self._struck.start()


@contextmanager
def masters(folder: Path) -> Iterator[Masters]:
    """All of them, started and of one mind."""
    with ExitStack() as stack:
        first = stack.enter_context(running(redis_server(folder / "redis0", *OPTIONS)))
        follow = ("--replicaof", "127.0.0.1", str(first.port))
        more = [stack.enter_context(running(redis_server(folder / f"redis{n}", *OPTIONS, *follow))) for n in (1, 2)]
        watcher = stack.enter_context(running(sentinel(folder / "sentinel", first)))
        made = Masters([first, *more], watcher)
        until(made.master)
        until(lambda: client(watcher).sentinel_masters()[SERVICE]["num-slaves"] == 2)
        yield made
