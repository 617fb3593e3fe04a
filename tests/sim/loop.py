"""An event loop in virtual time: no threads, no sockets, no sleeping, and every choice made by a seed.

Each callback belongs to a simulated *process*, by its context. A process that is dead runs nothing any more; one that
is paused runs what came due when it goes on. Time jumps to the next timer when nothing is ready.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
from asyncio import events
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")
STEP_SECONDS = 1e-6
MAX_STEPS = 400_000
"""A run that takes more callbacks spins."""


class Spinning(Exception):
    """The run never ends: a loop without a wait."""


class Deadlock(Exception):
    """Nothing is left that could ever wake the run's own task."""


class Process:
    """What dies, pauses and goes on together."""

    __slots__ = ("alive", "context", "fuse", "held", "name", "paused")

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.fuse = 0
        """Where it is above 0: after so many callbacks ``SimLoop.blown`` is called."""
        self.held: list[Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("PROCESS", default=None)


class Handle(asyncio.TimerHandle):
    """One callback."""

    __slots__ = ("args", "callback", "context", "off", "process", "time")

    def __init__(  # a handle of asyncio by type only: none of its own state is needed
        self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context, time: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context.get(PROCESS)
        self.time = time
        self.off = False

    def cancel(self) -> None:
        self.off = True

    def cancelled(self) -> bool:
        return self.off

    def when(self) -> float:
        return self.time

    def __repr__(self) -> str:
        return f"<{self.callback} at {self.time}>"


class SimTask(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, *args: Any, number: int, **more: Any) -> None:
        self.number = number
        super().__init__(*args, **more)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one run."""

    def __init__(
        self,
        chance: random.Random,
        *,
        shuffled: bool,
        failed: Callable[[dict[str, Any]], None],
        max_steps: int = MAX_STEPS,
    ) -> None:
        """``shuffled``: what is ready runs in any order; else in the order in which it became ready."""
        self._random = chance.random
        self._shuffled = shuffled
        self._failed = failed
        self._ready: list[Handle] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._time = 0.0
        self._tasks: list[asyncio.Task[Any]] = []
        self._over = False
        self.steps = 0
        self._max_steps = max_steps
        self.blown: Callable[[Process], None] = lambda process: None

    # What asyncio needs.

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        if self._over:
            coro.close()
            return self.create_future()  # type: ignore[return-value]  # awaited and dropped, never run
        task: asyncio.Task[Any] = SimTask(coro, loop=self, name=name, context=context, number=len(self._tasks))
        self._tasks.append(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]  # the stub's type variables
        handle = Handle(callback, args, context or copy_context(), self._time)
        if not self._over:
            self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no threads

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]  # the stub's type variables
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Handle:  # type: ignore[override]  # the stub's type variables
        handle = Handle(callback, args, context or copy_context(), when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            self._failed(context)

    def pause(self, seconds: float) -> asyncio.Future[None]:
        """What ``asyncio.sleep`` waits for, and nothing else: a run sleeps a thousand times."""
        future = asyncio.Future[None](loop=self)
        self.call_at(self._time + seconds, _wake, future)
        return future

    # Processes.

    def spawn(self, process: Process, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Start ``work`` as a task of ``process``."""
        return self.create_task(work, name=name or process.name, context=process.context.copy())

    def resume(self, process: Process) -> None:
        """A paused process goes on with all that came due meanwhile."""
        process.paused = False
        self._ready += process.held
        process.held = []

    # Running.

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run until ``work`` is done; raises what it raises, ``Deadlock`` and ``Spinning``."""
        events._set_running_loop(self)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=_drop)
        try:
            main, step = self.create_task(work, name="main"), self._step
            while not main.done():
                step()
            return main.result()  # type: ignore[no-any-return]  # of the task that was just made
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(None)

    def _step(self) -> None:
        # Half of a run's time is spent around here, so nothing is called that need not be.
        ready = self._ready
        if not ready:
            self._advance()
        if len(ready) == 1:
            handle = ready.pop()
        elif self._shuffled:
            index = int(self._random() * len(ready))
            handle = ready[index]
            last = ready.pop()
            if handle is not last:
                ready[index] = last
        else:
            handle = ready.pop(0)
        if handle.off:
            return
        process = handle.process
        if process is not None and (process.fuse or process.paused or not process.alive):  # noqa: SIM102 - mypy
            if not self._goes_on(process, handle):
                return
        self.steps += 1
        # Nothing takes no time: what one process did before another one has an earlier time on equal clocks.
        self._time += STEP_SECONDS
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt, Spinning):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does
            self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _goes_on(self, process: Process, handle: Handle) -> bool:
        """Whether ``process`` runs ``handle`` now."""
        if process.fuse and process.alive and not process.paused:
            process.fuse -= 1
            if not process.fuse:
                self.blown(process)
        if process.paused:
            process.held.append(handle)
        return process.alive and not process.paused

    def _advance(self) -> None:
        if self.steps > self._max_steps:
            raise Spinning(f"{self.steps} callbacks in {self._time:.0f} s")
        timers = self._timers
        while timers and timers[0][2].off:
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing is left to do at {self._time:.3f} s")
        self._time = max(self._time, timers[0][0])
        while timers and timers[0][0] <= self._time:
            self._ready.append(heapq.heappop(timers)[2])

    def close(self) -> None:
        """End what never ended, without running any of it further than its own cleaning up."""
        self._over = True
        events._set_running_loop(self)
        try:
            for task in self._tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # its end is meant
                    _close(task.get_coro())
        finally:
            events._set_running_loop(None)
            self._tasks.clear()
            self._ready.clear()
            self._timers.clear()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _drop(generator: AsyncGenerator[Any, None]) -> None:
    """A generator that nobody ends goes with its process: it cleans up nothing."""


def _close(coroutine: Any) -> None:
    for _ in range(20):
        try:
            # Each wait of its cleaning up is broken off in turn.
            coroutine.throw(asyncio.CancelledError())
        except BaseException:  # noqa: BLE001 - a dead process cleans up into nothing
            break
