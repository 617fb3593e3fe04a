"""Somebody else: an honest person who goes on while the server under test has other worries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from benchmarks.load import Mailbox, Reader, Sender, mailboxes
from benchmarks.load_http import connections
from benchmarks.mail import user
from benchmarks.servers import Server
from router.bench.latencies import Latencies

T = TypeVar("T")


class Others:
    """A person who writes to another, who fetches and acknowledges: one request after the other, all the time."""

    def __init__(self, sender: Sender, reader: Reader, box: Mailbox, pause_seconds: float) -> None:
        self.waits = Latencies()
        """Of each request since this was last set."""
        self.sends = Latencies()
        """Of these, the sends."""
        self.stopping = False
        self._sender = sender
        self._reader = reader
        self._box = box
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        while not self.stopping:
            started = time.perf_counter()
            await self._timed(self._sender.send(self._box))
            self.sends.add(time.perf_counter() - started)
            while not (messages := await self._timed(self._reader.fetch())):
                pass
            self._reader.keep(messages)
            await self._timed(self._reader.acknowledge(messages))
            await asyncio.sleep(self._pause_seconds)
        self._box.check()

    async def _timed(self, request: Coroutine[Any, Any, T]) -> T:
        started = time.perf_counter()
        answer = await request
        self.waits.add(time.perf_counter() - started)
        return answer


@contextlib.asynccontextmanager
async def somebody_else(server: Server, pause_seconds: float = 0) -> AsyncIterator[Others]:
    """``pause_seconds``: between the last acknowledgement and the next message."""
    (box,) = mailboxes("other", 1)
    async with connections(server.port, 2) as (writing, reading), asyncio.TaskGroup() as group:
        sender = Sender(writing, server.token(user("sender", 0)))
        others = Others(sender, Reader(reading, server.token(box.user), box), box, pause_seconds)
        group.create_task(others.run())
        try:
            yield others
        finally:
            others.stopping = True
