"""Starts the workers of a service, replaces those that die, and is the one process that its operator deals with."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec

from router import __version__, logs
from router.clock import SystemClock
from router.config import Config, Service, address
from router.core.readiness import Failed, Shared, State
from router.errors import Unavailable
from router.metrics import Metrics
from router.retry import backoff
from router.web.health import Health
from router.web.ports import admin_server, public_ports, say_hello
from router.web.transport.listeners import reserve
from router.workers.link import Link
from router.workers.metric_sums import counts_of, summed
from router.workers.order import Order, Program

LOG = logs.logger(__name__)
LAST_SECONDS = 5.0
"""Seconds beyond ``server.drain_seconds`` after which a worker is killed; one that can ends itself before."""
ANSWER_SECONDS = 3.5
"""A worker that does not answer in time counts as one that does not work; it asks its own dependencies for 3 s."""
FIRST_SECONDS, LONGEST_SECONDS = 0.2, 30.0
"""Pause before a worker is replaced: after its first death, and at most."""
STEADY_SECONDS = 60.0
"""If a worker has served for this time, its death counts as a first one again."""
FAILED = 1
"""The exit code of a service of which a signal has ended a worker."""


class Worker:
    """A process and the connection to it. State: since when it serves, and its metrics when it was asked last."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, link: Link) -> None:
        self.name = name
        self.process = process
        self.link = link
        self.serves_since: float | None = None
        """By the clock of the event loop."""
        self.metrics = ""

    async def learn_metrics(self) -> None:
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                self.metrics = await self.link.ask("metrics")

    async def state(self) -> State:
        """Its own; a worker that stops by itself does not work for the service."""
        if self.serves_since is not None:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    state = msgspec.convert(await self.link.ask("state"), State)
                    if not state.draining:
                        return state
        return missing(self.name)


def name_of(number: int) -> str:
    """What the log calls a worker, and what readiness calls one that is missing."""
    return f"worker-{number}"


def missing(name: str) -> State:
    """The state of a worker that does not work."""
    return State(failed=[{"dependency": "workers", "kind": name}])


def state_of_all(states: list[State]) -> State:
    """All have to be ready."""
    failed: list[Failed] = []
    for state in states:
        failed += [one for one in state.failed if one not in failed]
    return State(failed=failed, limited=list(dict.fromkeys(said for state in states for said in state.limited)))


class Unit:
    """The workers of ``service`` as one. State: those that run, by number, and the counts of those that have ended."""

    def __init__(self, config: Config, service: Service, count: int, program: Program) -> None:
        self._config = config
        self._service = service
        self._numbers = range(1, count + 1)
        self._program = program
        self._workers: dict[int, Worker] = {}
        self._counted = ""
        self._complete = False
        """All workers have served: from now on, those that end are replaced."""
        self._stop = asyncio.Event()
        self._killed = False
        self._code = 0
        self._failure: OSError | None = None
        self._chance = random.Random()  # noqa: S311 - jitter, no secret
        self._found = Shared(self._ask, SystemClock())
        self._metrics = Metrics()
        self._metrics.workers()
        self._metrics.lines_dropped(logs.dropped)
        self._metrics.process(service, __version__)

    async def run(self) -> int:
        """Until a signal; returns the exit code. Raises ``ConfigError`` if the ports cannot be listened to, and
        ``OSError`` if the system starts no processes."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        # Under nohup SIGHUP is ignored and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._stop.set)
        async with AsyncExitStack() as stack:
            listening = self._reserve_ports(stack)
            admin = await stack.enter_async_context(admin_server(self._config, Health(self, self), self._metrics))
            keeping = await self._start()
            if self._complete:
                say_hello(self._config, self._service, listening, admin.urls, workers=len(self._numbers))
            await self._stop.wait()
            await self._drain(keeping)
        if self._failure is not None:
            raise self._failure
        LOG.info("stopped")
        return self._code

    def _reserve_ports(self, stack: AsyncExitStack) -> list[str]:
        """Keep the public ports for the workers, who are told those that the system has chosen. Returns their URLs."""
        server, urls, chosen = self._config.server, list[str](), dict[int, int]()
        for port in public_ports(self._config, self._service):
            for held in reserve(server.host, port):
                stack.enter_context(held)
                host, chosen[port], *_ = held.getsockname()
                urls.append(address("http", host, chosen[port]))
        ports = {key: chosen.get(getattr(server, key), getattr(server, key)) for key in ("api_port", "ws_port")}
        self._config = self._config.model_copy(update={"server": server.model_copy(update=ports)})
        return urls

    def _on_signal(self) -> None:
        if self._stop.is_set():
            LOG.warning("stopping at once; sweepers finish what is left")
            self._kill()
            logs.finish()
            os._exit(self._code)
        self._stop.set()

    async def _start(self) -> list[asyncio.Task[None]]:
        """Return when all workers serve, or the service is to stop. The first one starts alone: it makes what is
        missing, upgrades the data of an earlier version, and is the only one to say what is wrong."""
        keeping: list[asyncio.Task[None]] = []
        for numbers in (self._numbers[:1], self._numbers[1:]):
            came = [asyncio.Event() for _ in numbers]
            keeping += [asyncio.create_task(self._keep(*each)) for each in zip(numbers, came, strict=True)]
            await asyncio.gather(*(event.wait() for event in came))
            if self._stop.is_set():
                return keeping
        self._complete = True
        return keeping

    async def _drain(self, keeping: list[asyncio.Task[None]]) -> None:
        seconds = self._config.server.drain_seconds
        LOG.info("draining", seconds=seconds)
        telling = [asyncio.create_task(_tell_to_drain(worker)) for worker in self._workers.values()]
        _, late = await asyncio.wait(keeping, timeout=seconds + LAST_SECONDS)
        if late:
            LOG.warning("the drain took too long; sweepers finish what is left")
            self._kill()
            await asyncio.wait(late)
        await asyncio.gather(*telling)

    def _kill(self) -> None:
        self._killed = True
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                worker.process.kill()

    async def _keep(self, number: int, came: asyncio.Event) -> None:
        """Run worker ``number``, and others in its place, until the service stops. ``came`` is set when the first one
        serves, or never will."""
        try:
            deaths = 0
            while not self._stop.is_set():
                try:
                    worker, code = await self._run(number, came)
                except OSError as error:  # the system lacks memory, or room for processes
                    if not self._complete:
                        self._failure = error
                        self._stop.set()
                        return
                    steady = False
                    LOG.warning(
                        "a worker cannot be started; it is tried again", worker=name_of(number), error=str(error)
                    )
                else:
                    if self._stop.is_set() or not self._complete or code == self._program.misconfigured:
                        self._end(worker, code)
                        return
                    steady = worker.serves_since is not None and _now() - worker.serves_since >= STEADY_SECONDS
                    LOG.error("a worker has ended; another one takes its place", **_told(worker, code))
                deaths = 1 if steady else deaths + 1
                self._metrics.worker_replaced()
                await self._pause(deaths)
        finally:
            came.set()

    async def _pause(self, deaths: int) -> None:
        """Before a worker is replaced; the end of the service ends it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(backoff(deaths, self._chance, first=FIRST_SECONDS, longest=LONGEST_SECONDS)):
                await self._stop.wait()

    def _end(self, worker: Worker, code: int) -> None:
        """A worker has ended that is not replaced: the service stops, if it does not do so anyway."""
        if code < 0 and not self._killed:
            LOG.error("a worker has ended", **_told(worker, code))
        if not self._code and not self._killed:
            self._code = FAILED if code < 0 else code
        self._stop.set()

    async def _run(self, number: int, came: asyncio.Event) -> tuple[Worker, int]:
        """Run a worker to its end; returns its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await self._spawn(number, theirs)
        except BaseException:
            ours.close()
            raise
        async with Link(ours, {"state": self.state}, lambda: None) as link:
            worker = self._workers[number] = Worker(name_of(number), process, link)
            telling = [asyncio.create_task(_tell_to_drain(worker))] if self._stop.is_set() else []
            with suppress(Unavailable):
                await link.ask("serving")
                worker.serves_since = _now()
                came.set()
            code = await process.wait()
            del self._workers[number]
            self._counted = summed([self._counted, counts_of(worker.metrics)])
            await asyncio.gather(*telling)
        return worker, code

    async def _spawn(self, number: int, end: socket.socket) -> asyncio.subprocess.Process:
        command = [*self._program.command, str(end.fileno())]
        # A session of its own: Ctrl-C is for the parent, which tells the workers.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[end.fileno()],
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(Order(self._config, self._service, name_of(number)).dump())
        process.stdin.close()
        return process

    async def state(self) -> State:
        """Ready only if all workers are."""
        return State(draining=True) if self._stop.is_set() else await self._found.get()

    async def _ask(self) -> State:
        asked = [worker.state() for worker in self._workers.values()]
        lacking = [missing(name_of(number)) for number in self._numbers if number not in self._workers]
        return state_of_all([*await asyncio.gather(*asked), *lacking])

    async def expose(self) -> bytes:
        """The metrics of all workers and of this process. What workers had counted that have ended is kept, as far as
        it was seen, so that no count ever falls."""
        await asyncio.gather(*(worker.learn_metrics() for worker in self._workers.values()))
        own = self._metrics.render().decode()
        return summed([own, self._counted, *(worker.metrics for worker in self._workers.values())]).encode()


async def _tell_to_drain(worker: Worker) -> None:
    with suppress(Unavailable):
        await worker.link.ask("drain")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _told(worker: Worker, code: int) -> dict[str, Any]:
    how = {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}
    return {"worker": worker.name, "ended_pid": worker.process.pid, **how}
