"""Runs uvicorn and stops it in our order: by itself it would close the sockets first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import uvicorn

from router.config import address
from router.web.transport.config import TransportConfig
from router.web.transport.listeners import PUBLIC, Keys, listen

LOOK_SECONDS = 1.0


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers, since the service handles signals, and with one look a second, for the date of
    answers. uvicorn looks ten times, on each of three ports: that was half of what a router did with nobody online."""

    _exits: asyncio.Event | None = None

    def stop(self) -> None:
        """End ``serve``, or let it not begin."""
        self.should_exit = True
        if self._exits is not None:
            self._exits.set()

    async def main_loop(self) -> None:
        self._exits = asyncio.Event()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._exits.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One listening port with its application, as an async context manager. Raises ``ConfigError``."""

    def __init__(
        self, config: TransportConfig, host: str, port: int, keys: Keys = PUBLIC, *, shared: bool = False
    ) -> None:
        """``shared``: other processes listen to the same port."""
        self._shared = shared
        self._keys = keys
        self._host = host
        self._wanted = port
        self._uvicorn = _Uvicorn(config)
        self._uvicorn.servers = []

    async def __aenter__(self) -> Self:
        self._sockets = listen(self._host, self._wanted, self._keys, shared=self._shared)
        self.port: int = self._sockets[0].getsockname()[1]
        self._serving = asyncio.create_task(self._uvicorn.serve(self._sockets))
        return self

    @property
    def addresses(self) -> list[str]:
        """The addresses it listens at: several if the name of the host has several."""
        return [listener.getsockname()[0] for listener in self._sockets]

    @property
    def urls(self) -> list[str]:
        return [address("http", at, self.port) for at in self.addresses]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uvicorn.stop()
        await self._serving

    def stop_listening(self) -> None:
        """Take no new connections; those that are open go on. A server that has not begun to serve does not begin."""
        if not self._uvicorn.started:
            self._uvicorn.stop()
        for server in self._uvicorn.servers:
            server.close()
