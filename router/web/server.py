"""uvicorn, set up for this service and stopped in our order: its own way cuts the sockets first."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import uvicorn

from router.errors import ConfigError
from router.web.bounds import BoundedConfig

BACKLOG = 2048


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
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(info[0], info[1])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; is another router running? "
            "set another server.host, server.api_port, server.ws_port or process.port"
        ) from error
    return listener
