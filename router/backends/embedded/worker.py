"""Runs a database's blocking calls: on a thread, or inline in a simulation."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

Job = Callable[[], None]
Done = Callable[[BaseException | None], None]


class Worker(Protocol):
    """Runs one job at a time; ``done`` is called on the event loop with the job's error, if any."""

    async def start(self) -> None: ...

    def submit(self, job: Job, done: Done) -> None: ...

    async def stop(self) -> None:
        """Return when every job submitted before has run."""
        ...

    def abandon(self, last: Job) -> None:
        """Instead of ``stop``: do not wait for the job that runs, tell nobody how it ends, and then run ``last``."""
        ...


class InlineWorker:
    """Runs each job at once, for simulations, which choose the schedule and have only one thread."""

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Job, done: Done) -> None:
        self._loop.call_soon(done, _failure(job))

    async def stop(self) -> None:
        return

    def abandon(self, last: Job) -> None:
        last()


class ThreadWorker:
    """Runs the jobs on one thread, so that the event loop never waits for the disk."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Job, Done] | None] = queue.SimpleQueue()
        self._last: Job | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        threading.Thread(target=self._work, name="sqlite", daemon=True).start()

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.put((job, done))

    async def stop(self) -> None:
        self._jobs.put(None)
        await self._stopped.wait()

    def abandon(self, last: Job) -> None:
        self._last = last

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            failure = _failure(job)
            if self._last is not None:
                self._last()
                return
            self._loop.call_soon_threadsafe(done, failure)
        self._loop.call_soon_threadsafe(self._stopped.set)


def _failure(job: Job) -> BaseException | None:
    try:
        job()
    except Exception as error:  # noqa: BLE001 - handed to the caller that submitted the job
        return error
    return None
