"""Joins the writes of concurrent callers into few calls: when a call returns, all writes that wait are the next one.

``batch_write`` carries out each write by itself and returns a status for each. Only unconfirmed writes are repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import grpc

from router.backends.firestore.client import Client
from router.backends.firestore.wire import Write
from router.backends.google.calls import REFUSED, TRANSIENT, pause, translate
from router.backends.google.channels import FIRESTORE
from router.errors import Refused, RouterError, Unavailable

BATCH_WRITES = 500
"""Most writes that a call takes."""
BATCH_BYTES = 3_500_000
"""Bytes of one call; Firestore takes 10 MiB, an emulator 4 MiB."""
CALLS = 4
"""Concurrent calls: more than one, so that a slow call does not delay all writes."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class Exists(RouterError):
    """The document to create exists: an earlier call whose answer was lost created it, or another caller did."""


class _Request:
    """The writes of one caller; ``done`` is set when each has a result."""

    __slots__ = ("done", "left", "results")

    def __init__(self, count: int) -> None:
        self.left = count
        self.results: list[RouterError | None] = [None] * count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Item:
    __slots__ = ("index", "path", "request", "resolved", "size", "write")

    def __init__(self, write: Write, request: _Request, index: int) -> None:
        self.write = write
        self.path: str = write.update.name or write.delete
        self.size: int = write.ByteSize()
        self.request = request
        self.index = index
        self.resolved = False

    @property
    def is_awaited(self) -> bool:
        """Whether its caller still waits."""
        return not self.request.done.done()

    def resolve(self, result: RouterError | None) -> None:
        if self.resolved:
            return
        self.resolved = True
        request = self.request
        request.results[self.index] = result
        request.left -= 1
        if not request.left and not request.done.done():
            request.done.set_result(None)


class Writer:
    """Group commit over ``Client.batch_write``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[_Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0
        """Tasks that will look for writes again; not those that found none and are about to end."""

    async def write(self, writes: Sequence[Write]) -> list[RouterError | None]:
        """Carry out ``writes``, each by itself. Returns ``None`` for each that is done, else its error: ``Refused`` if
        it can never be done, ``Exists`` if the document to create exists, else ``Unavailable``."""
        if not writes:
            return []
        request = _Request(len(writes))
        self._waiting.extend(_Item(write, request, index) for index, write in enumerate(writes))
        if self._working < CALLS:
            self._working += 1
            task = asyncio.get_running_loop().create_task(self._work(), name="firestore writes")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await request.done
        return request.results

    async def aclose(self) -> None:
        """Cancel the calls that run; their callers get ``Unavailable``."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for item in self._waiting:
            item.resolve(Unavailable("closing"))

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._carry_out(batch)
        finally:
            self._working -= 1

    async def _carry_out(self, batch: Sequence[_Item]) -> None:
        try:
            await self._send(batch)
        finally:
            for item in batch:
                item.resolve(Unavailable("the write was broken off"))

    def _take(self) -> list[_Item]:
        """The writes of the next call: as many as fit, and each document once."""
        batch: list[_Item] = []
        paths: set[str] = set()
        later: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < BATCH_WRITES:
            item = self._waiting.popleft()
            if not item.is_awaited:
                continue
            if item.path in paths:
                later.append(item)
            elif batch and size + item.size > BATCH_BYTES:
                later.append(item)
                break
            else:
                batch.append(item)
                paths.add(item.path)
                size += item.size
        self._waiting.extendleft(reversed(later))
        return batch

    async def _send(self, batch: Sequence[_Item]) -> None:
        loop = asyncio.get_running_loop()
        until, tries = loop.time() + self._client.patience.budget, 0
        while True:
            tries += 1
            failed = await self._attempt(batch)
            wait = pause(tries, self._client.chance)
            if not failed:
                return
            if loop.time() + wait > until:
                break
            await asyncio.sleep(wait)
            batch = [item for item, _ in failed if item.is_awaited]
            if not batch:
                return
        for item, error in failed:
            item.resolve(error)

    async def _attempt(self, batch: Sequence[_Item]) -> list[tuple[_Item, RouterError]]:
        """Make one call, or several if Firestore refuses all writes because of one. Returns the writes to retry."""
        try:
            statuses = await self._client.batch_write([item.write for item in batch], self._client.patience.call)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED and len(batch) > 1:
                half = len(batch) // 2
                return [*await self._attempt(batch[:half]), *await self._attempt(batch[half:])]
            return _judged(batch, [(error.code(), error.details() or "")] * len(batch))
        return _judged(batch, [(_CODES.get(code, grpc.StatusCode.UNKNOWN), text) for code, text in statuses])


def _judged(batch: Sequence[_Item], statuses: Sequence[tuple[grpc.StatusCode, str]]) -> list[tuple[_Item, RouterError]]:
    """Set the results of writes that are decided; returns the writes to retry."""
    failed: list[tuple[_Item, RouterError]] = []
    for item, (code, text) in zip(batch, statuses, strict=True):
        if code is grpc.StatusCode.OK:
            item.resolve(None)
        elif code is grpc.StatusCode.ALREADY_EXISTS:
            item.resolve(Exists(text))
        else:
            error = translate(FIRESTORE.name, code, text)
            if code in TRANSIENT:
                failed.append((item, error))
            else:
                item.resolve(error)
    return failed


def worst(results: Sequence[RouterError | None]) -> RouterError | None:
    """The error to raise for ``results``: the first ``Refused``; if all failed, the first error; else ``None``."""
    for result in results:
        if isinstance(result, Refused):
            return result
    return results[0] if results and None not in results else None


def check(results: Sequence[RouterError | None]) -> None:
    """Raise the first error of ``results``, for a caller that repeats all if one fails."""
    for result in results:
        if result is not None:
            raise result
