"""uvicorn, set up for this service and stopped in our order: its own way cuts the sockets first."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import uvicorn

from router.errors import ConfigError
from router.web.bounds import BoundedConfig

BACKLOG = 2048
HOSTS = "set it to an address of this machine, or to 0.0.0.0 or :: for all of them"
PORTS = "set another server.api_port, server.ws_port, process.port or PORT"


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers: signals are the service's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One listening port with its application, as an async context manager. Raises ``ConfigError``."""

    def __init__(self, config: BoundedConfig, host: str, port: int) -> None:
        self._host = host
        self._wanted = port
        self._uvicorn = _Uvicorn(config)
        self._uvicorn.servers = []

    async def __aenter__(self) -> Self:
        self._socket = _listen(self._host, self._wanted)
        self.port: int = self._socket.getsockname()[1]
        self._serving = asyncio.create_task(self._uvicorn.serve([self._socket]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uvicorn.should_exit = True
        await self._serving

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on. One that has not begun to serve does not begin."""
        if not self._uvicorn.started:
            self._uvicorn.should_exit = True
        for server in self._uvicorn.servers:
            server.close()


def _listen(host: str, port: int) -> socket.socket:
    family, kind, _, _, where = _resolved(host, port)
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {_in_words(error)}") from error
    return listener


def _resolved(host: str, port: int) -> Any:
    """The first that ``getaddrinfo`` finds."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it cannot be a name"
        raise ConfigError(f"server.host is {host!r}, which does not resolve ({why}); {HOSTS}") from error


def _in_words(error: OSError) -> str:
    """What is wrong, and how to mend it."""
    if error.errno == errno.EADDRNOTAVAIL:
        return f"server.host is no address of this machine; {HOSTS}"
    if error.errno == errno.EADDRINUSE:
        return f"the port is in use; is another router running? {PORTS}"
    if error.errno == errno.EACCES:
        return (
            "this user may not; set a port above 1023 (server.api_port, server.ws_port, process.port or PORT), "
            "or give the process CAP_NET_BIND_SERVICE"
        )
    return f"{error.strerror}; set another server.host, or {PORTS}"
