"""The long-running services: which parts each one runs, and how it starts and stops."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import uvloop
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from router import __version__, cores, logs, open_files
from router.auth.authenticator import open_authenticator
from router.auth.verifier import Authenticator
from router.config import Config, Service, check_api
from router.config.combinations import is_loopback
from router.config.roles import Role, kinds
from router.config.sources import Problem
from router.core.acceptance import Acceptor
from router.core.clocks import ClockWatch
from router.core.connections import ConnectionManager
from router.core.pipeline import Pipeline
from router.core.readiness import NEEDED_BY_API, NEEDED_BY_SOCKETS, NEEDED_TO_PROCESS, Probe, Readiness, State
from router.core.send_limits import SendLimits
from router.core.work_budget import WorkBudget
from router.data_dir import make_data_dir, unusable
from router.errors import ConfigError, DataDirError, RouterError
from router.factory import Factory, backends, check_machine
from router.reports import LogReports
from router.tracing import open_spans
from router.web import documents
from router.web.access_log import AccessLog
from router.web.api import Api
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.cors import Cors
from router.web.health import Health, Ready
from router.web.poke_sockets import Sockets
from router.web.ports import admin_server, public_ports, say_hello, transport
from router.web.transport.server import Server
from router.workers.link import Answers, Link
from router.workers.member import Member
from router.workers.order import PARENT, Order, Program
from router.workers.parent import Unit

LOG = logs.logger(__name__)
LAST_SECONDS = 3.0
"""Seconds beyond ``server.drain_seconds`` after which the process ends, whatever is still open."""
SWITCH_SECONDS = 0.0005
"""Longest time that the database thread waits for a busy event loop. It waits twice for each commit; with Python's
default of 5 ms that would be most of the time that a 202 takes."""
GARBAGE_OBJECTS = 10_000
"""Threshold of Python's garbage collection. Requests leave no cycles behind; at Python's default of 700, collection
took a tenth of the time of a request."""


def run(config: Config, service: Service, program: Program, warnings: Sequence[Problem] = ()) -> int:
    """Run ``service`` until SIGTERM, SIGINT or SIGHUP; return the exit code. Raises ``RouterError`` if it cannot start.

    ``program`` runs a worker, where there are several. ``warnings``: of the configuration, for the log.
    """
    count = workers(config, service)
    _check_address(config, service)
    if service in ("serve", "serve-api"):
        check_api(config)
    _begin_log(config, service, PARENT if count > 1 else None)
    for warning in warnings:
        LOG.warning("configuration", key=warning.key, problem=warning.message)
    open_files.raise_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    check_machine(config, trial=True)
    with _alone(config, service):
        if count > 1:
            return uvloop.run(Unit(config, service, count, program).run())
        uvloop.run(_Service(config, service).run())
    return 0


def run_worker(order: Order, end: socket.socket) -> None:
    """Run one of several workers until the parent, which is at the other ``end``, or a signal tells it to stop.

    The parent has checked what there is to check.
    """
    _begin_log(order.config, order.service, order.name)
    open_files.raise_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(_Service(order.config, order.service, end).run())


def _begin_log(config: Config, service: Service, process: str | None) -> None:
    """``process``: what the log calls this one, where several are the service."""
    origin = {"service": service} if process is None else {"service": service, "process": process}
    logs.configure(config.server.log_format, config.server.log_level, origin, config.google.project)


def workers(config: Config, service: Service) -> int:
    """How many processes run ``service``. Of ``process`` there is always one: it has no port to share, so it can just
    be started again."""
    if service == "process":
        return 1
    return cores.usable() if config.server.workers == "auto" else config.server.workers


def _spare_what_stays() -> None:
    """Exempt the objects that exist after the start from garbage collection, since they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, *gc.get_threshold()[1:])


def _check_address(config: Config, service: Service) -> None:
    """Refuse the embedded key beyond loopback: it is for users of this machine only."""
    if service != "process" and config.auth.signs_tokens and not is_loopback(config.server.host):
        raise ConfigError(
            f"server.host is {config.server.host}, but the embedded key is for loopback only; "
            "set auth.identity_service_url or auth.jwks_url"
        )


@contextmanager
def _alone(config: Config, service: Service) -> Iterator[None]:
    """Allow one ``serve`` for each data directory; ``serve-api``, ``serve-ws`` and ``process`` may share it."""
    if service != "serve" or not backends(config).ingress().local:
        yield
        return
    path = config.embedded.data_dir / "serve.lock"
    lock = _open_lock(path)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirError(
                f"another `router serve` uses {path.parent}; stop it, or name another embedded.data_dir"
            ) from error
        yield
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    make_data_dir(path.parent)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(path.parent, error) from error


class Probed(Protocol):
    """A component with a probe."""

    async def probe(self) -> None: ...


class _Service:
    """One process: opens its parts, runs until it is told to stop, and drains."""

    def __init__(self, config: Config, service: Service, parent: socket.socket | None = None) -> None:
        """``parent``: where this is one of several workers, the connection to who has started it."""
        self._config = config
        self._parent = parent
        self._serving = asyncio.Event()
        self._service = service
        self._stop = asyncio.Event()
        self._reports = LogReports(kinds(config))
        self._failure: BaseException | None = None
        self._manager: ConnectionManager | None = None
        self._pipeline: Pipeline | None = None
        self._consuming: asyncio.Task[None] | None = None
        self._application: Application | None = None
        self._servers: list[Server] = []
        """The public ones."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        # Under nohup SIGHUP is ignored and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        async with AsyncExitStack() as stack:
            reports = self._reports
            stack.callback(reports.finish)
            opening = partial(open_spans, os.environ, self._service)
            factory = Factory(self._config, task_failed=reports.bug, reports=reports, open_spans=opening)
            logs.name_origin(node=factory.node)
            self._factory = await stack.enter_async_context(factory)
            factory.metrics.lines_dropped(logs.dropped)
            factory.metrics.process(self._service, __version__)
            self._readiness = Readiness(factory.clock)
            await self._open(stack)
            self._serving.set()
            _spare_what_stays()
            await self._stop.wait()
            await self._drain()
        if self._failure is not None:
            raise self._failure

    def _link(self, parent: socket.socket) -> Member:
        async def serving() -> None:
            await self._serving.wait()

        async def state() -> State:
            return await self._readiness.state()

        async def metrics() -> str:
            return self._factory.metrics.render().decode()

        async def drain() -> None:
            self._begin_to_drain()

        answers: Answers = {"serving": serving, "state": state, "metrics": metrics, "drain": drain}
        return Member(Link(parent, answers, self._on_parent_gone), self._readiness, self._factory.clock)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._end_now()
        self._begin_to_drain()

    def _begin_to_drain(self) -> None:
        if not self._stop.is_set():
            LOG.info("draining", seconds=self._config.server.drain_seconds)
            self._stop.set()

    def _on_hangup(self) -> None:
        """Drain, but unlike a second SIGTERM a second SIGHUP does not end the process at once: a terminal that closes
        sends two, one from its shell and one from the kernel."""
        self._begin_to_drain()

    def _on_parent_gone(self) -> None:
        """It was killed: its workers end as one process that is killed, so that another can take its place."""
        LOG.error("the parent process has gone, so this worker ends")
        self._end_now()

    def _end_now(self) -> None:
        """End without cleaning up. Accepted messages are on disk, and the leases end every presence."""
        LOG.warning("stopping at once; sweepers finish what is left")
        logs.finish()
        os._exit(0 if self._failure is None else 1)

    async def _open(self, stack: AsyncExitStack) -> None:
        factory = self._factory
        service: Ready = self._readiness
        if self._parent is not None:
            service = await stack.enter_async_context(self._link(self._parent))
        context = EdgeContext(
            self._config.server.allowed_origins,
            factory.metrics,
            open_files.left_for_clients(),
            entropy=factory.entropy,
            access_log=AccessLog() if self._config.server.access_log == "on" else None,
        )
        health = Health(service, factory.metrics)
        routes: list[BaseRoute] = []
        if not factory.backends.online().local:  # or it has this machine's clock
            watch = ClockWatch(await factory.online_store(), factory.clock, factory.keeper, factory.metrics)
            await watch.begin()
            self._watch(watch.run, "clocks")
        if self._service in ("serve", "process"):
            await self._start_processing()
        if self._service != "process":
            opening = open_authenticator(self._config, factory.clock, factory.tasks, factory.chance)
            authenticator = await stack.enter_async_context(opening)
            self._readiness.depends("auth", self._config.auth.key_source, authenticator.probe)
            factory.metrics.key_set_age(lambda: authenticator.key_set_age_seconds)
            limits = self._config.limits
            work = WorkBudget(clock=factory.clock, rate=limits.work_rate, burst=limits.work_burst)
            if self._service in ("serve", "serve-api"):
                routes += await self._api(authenticator, work, context.refusals.refused)
            if self._service in ("serve", "serve-ws"):
                routes += await self._sockets(authenticator, work, context.cors)
        stack.callback(context.refusals.finish)
        self._watch(factory.dependencies.run, "dependencies")
        for upkeep in factory.upkeep():
            self._watch(upkeep.run, upkeep.name)
            self._readiness.limited(upkeep.limited)
        self._application = Application([*routes, *health.public_routes()], context, time.monotonic)
        app = self._traced(self._application)
        shared, host = self._parent is not None, self._config.server.host
        for port in public_ports(self._config, self._service):
            server = Server(transport(self._config, app, context), host, port, shared=shared)
            self._servers.append(await stack.enter_async_context(server))
        if shared:
            LOG.info("a worker is ready", pid=os.getpid(), node=factory.node)
            return
        admin = await stack.enter_async_context(admin_server(self._config, health, factory.metrics, factory.entropy))
        listening = [url for server in self._servers for url in server.urls]
        say_hello(self._config, self._service, listening, admin.urls, node=factory.node)

    def _traced(self, app: Application) -> ASGIApp:
        """``app``, whose requests have spans if this service is asked for traces, and whose log names them."""
        spans = self._factory.spans
        if spans is None:
            return app
        from router.spans import log_fields  # noqa: PLC0415 - the extra otel
        from router.web.traced_requests import TracedRequests  # noqa: PLC0415 - the same

        logs.name_traces(log_fields)
        return TracedRequests(app, spans)

    async def _start_processing(self) -> None:
        await self._depend(NEEDED_TO_PROCESS)
        self._pipeline = await self._factory.pipeline()
        self._consuming = self._watch(self._pipeline.run, "pipeline")
        self._watch((await self._factory.sweeper()).run, "sweeper")
        self._watch((await self._factory.census_taker()).run, "census")

    async def _api(
        self, authenticator: Authenticator, work: WorkBudget, refused: Callable[[RouterError], None]
    ) -> Sequence[BaseRoute]:
        producer, queue = await self._factory.ingress_producer(), await self._factory.message_queue()
        await self._depend(NEEDED_BY_API)
        limits = self._config.limits
        acceptor = Acceptor(
            self._factory.watched(Role.INGRESS, producer),
            SendLimits.of(self._config, self._factory.clock, self._factory.entropy),
            clock=self._factory.clock,
            entropy=self._factory.entropy,
            idempotency_secret=self._idempotency_secret(),
            max_bytes=limits.envelope_bytes,
            metrics=self._factory.metrics,
        )
        api = Api(
            authenticator,
            acceptor,
            queue,
            work,
            envelope_bytes=limits.envelope_bytes,
            body_seconds=self._config.server.client_seconds,
            refused=refused,
        )
        return [*api.routes(), *documents.routes()]

    async def _depend(self, roles: Iterable[Role]) -> None:
        """Make readiness depend on the components of ``roles``."""
        for role in roles:
            self._readiness.depends(role, self._factory.place(role).backend, await self._probe(role))

    async def _probe(self, role: Role) -> Probe:
        """Probe the component of ``role`` while nothing calls it, so that this service reports its outages. Returns the
        probe."""
        probe = self._factory.watched(role, await self._component(role)).probe
        self._factory.dependencies.probed(role, probe)
        return probe

    async def _component(self, role: Role) -> Probed:
        """That of ``role`` which has a probe."""
        if role is Role.INGRESS:
            return await self._factory.ingress_producer()
        return await (self._factory.online_store() if role is Role.ONLINE else self._factory.cold_queue())

    def _idempotency_secret(self) -> bytes:
        secret = self._config.ingress.idempotency_secret
        if secret is not None:
            return secret.get_secret_value().encode()
        from router.auth.embedded import idempotency_secret  # noqa: PLC0415 - brings cryptography

        return idempotency_secret(self._config.embedded.data_dir)

    async def _sockets(self, authenticator: Authenticator, work: WorkBudget, cors: Cors) -> Sequence[BaseRoute]:
        await self._depend(NEEDED_BY_SOCKETS)
        await self._probe(Role.COLD)
        self._manager = await self._factory.connection_manager()
        self._watch(partial(self._manager.run, authenticator.trusts), "connections")
        return Sockets(authenticator, self._manager, work, cors).routes()

    def _watch(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Run ``work`` as long as the service; if it fails, stop the service and raise its error."""

        async def watched() -> None:
            try:
                await work()
            except Exception as error:
                self._failure = error
                self._stop.set()
                raise

        return self._factory.tasks.spawn(watched(), name)

    async def _drain(self) -> None:
        """Finish what is in flight, within ``server.drain_seconds``; sweepers of other processes finish the rest."""
        self._readiness.draining = True
        seconds = self._config.server.drain_seconds
        asyncio.get_running_loop().call_later(seconds + LAST_SECONDS, self._end_now)
        for server in self._servers:
            server.stop_listening()
        try:
            async with asyncio.timeout(seconds):
                if self._manager is not None:
                    await self._manager.drain()
                if self._application is not None:
                    await self._application.finish()
                await self._stop_consuming()
                if self._pipeline is not None:
                    await self._pipeline.finish()
        except TimeoutError:
            LOG.warning("the drain took too long; sweepers finish what is left")
        await self._stop_consuming()
        if self._pipeline is not None:
            await self._pipeline.hand_back()
        LOG.info("stopped")

    async def _stop_consuming(self) -> None:
        if self._consuming is not None:
            self._consuming.cancel()
            await asyncio.wait([self._consuming])
