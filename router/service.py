"""The long-running services: which parts each one runs, and how it starts and stops."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
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

from router import __version__, logs, open_files
from router.auth.authenticator import open_authenticator
from router.auth.verifier import Authenticator
from router.config import Config, Service, address, check_api
from router.config.combinations import is_loopback
from router.config.roles import Role, kinds
from router.config.sources import Problem
from router.core.acceptance import Acceptor
from router.core.clocks import ClockWatch
from router.core.connections import ConnectionManager
from router.core.pipeline import Pipeline
from router.core.readiness import NEEDED_BY_API, NEEDED_BY_SOCKETS, NEEDED_TO_PROCESS, Probe, Readiness
from router.core.send_limits import SendLimits
from router.core.work_budget import WorkBudget
from router.data_dir import make_data_dir, unusable
from router.errors import ConfigError, DataDirError, RouterError
from router.factory import Factory, backends, check_machine
from router.reports import LogReports
from router.web import openapi
from router.web.api import Api, longest_body
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.cors import Cors
from router.web.health import Health
from router.web.poke_sockets import Sockets
from router.web.transport.config import TransportConfig
from router.web.transport.limits import Limits
from router.web.transport.listeners import ADMIN
from router.web.transport.server import Server

LOG = logs.logger(__name__)
LAST_SECONDS = 3.0
"""Seconds beyond ``server.drain_seconds`` after which the process ends, whatever is still open."""
SWITCH_SECONDS = 0.0005
"""Longest time that the database thread waits for a busy event loop. It waits twice for each commit; with Python's
default of 5 ms that would be most of the time that a 202 takes."""
ADMIN_CONNECTIONS = 32
"""Concurrent connections to the admin port; the process reserves files for them."""
GARBAGE_OBJECTS = 10_000
"""Threshold of Python's garbage collection. Requests leave no cycles behind; at Python's default of 700, collection
took a tenth of the time of a request."""


def run(config: Config, service: Service, warnings: Sequence[Problem] = ()) -> int:
    """Run ``service`` until SIGTERM, SIGINT or SIGHUP; return the exit code. Raises ``RouterError`` if it cannot start.

    ``warnings``: of the configuration, for the log.
    """
    _check_address(config, service)
    if service in ("serve", "serve-api"):
        check_api(config)
    logs.configure(config.server.log_format, config.server.log_level)
    for warning in warnings:
        LOG.warning("configuration", key=warning.key, problem=warning.message)
    open_files.raise_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    check_machine(config, trial=True)
    with _alone(config, service):
        uvloop.run(_Service(config, service).run())
    return 0


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


def _urls(*servers: Server) -> list[str]:
    return [address("http", at, server.port) for server in servers for at in server.addresses]


class Probed(Protocol):
    """A component with a probe."""

    async def probe(self) -> None: ...


class _Service:
    """One process: opens its parts, runs until it is told to stop, and drains."""

    def __init__(self, config: Config, service: Service) -> None:
        self._config = config
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
            factory = Factory(self._config, task_failed=reports.bug, reports=reports)
            self._factory = await stack.enter_async_context(factory)
            factory.metrics.lines_dropped(logs.dropped)
            self._readiness = Readiness(factory.clock)
            await self._open(stack)
            _spare_what_stays()
            await self._stop.wait()
            await self._drain()
        if self._failure is not None:
            raise self._failure

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._end_now()
        LOG.info("draining", seconds=self._config.server.drain_seconds)
        self._stop.set()

    def _on_hangup(self) -> None:
        """Drain, but unlike a second SIGTERM a second SIGHUP does not end the process at once: a terminal that closes
        sends two, one from its shell and one from the kernel."""
        if not self._stop.is_set():
            self._on_signal()

    def _end_now(self) -> None:
        """End without cleaning up. Accepted messages are on disk, and the leases end every presence."""
        LOG.warning("stopping at once; sweepers finish what is left")
        logs.finish()
        os._exit(0 if self._failure is None else 1)

    async def _open(self, stack: AsyncExitStack) -> None:
        factory = self._factory
        context = EdgeContext(
            self._config.server.allowed_origins,
            factory.metrics,
            open_files.left_for_clients(),
            entropy=factory.entropy,
        )
        health = Health(self._readiness, factory.metrics)
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
        self._application = app = Application([*routes, *health.public_routes()], context, time.monotonic)
        for port in self._ports():
            server = Server(self._transport(app, context), self._config.server.host, port)
            self._servers.append(await stack.enter_async_context(server))
        self._say_hello(await stack.enter_async_context(self._admin_server(health, stack)))

    def _admin_server(self, health: Health, stack: AsyncExitStack) -> Server:
        """Serves metrics, and readiness of each dependency. It has its own limit of connections, so that clients cannot
        use them up."""
        context = EdgeContext((), self._factory.metrics, ADMIN_CONNECTIONS, entropy=self._factory.entropy)
        stack.callback(context.refusals.finish)
        app = Application(health.admin_routes(), context, time.monotonic)
        server = self._config.server
        return Server(self._transport(app, context), server.admin_host, server.admin_port, ADMIN)

    def _transport(self, app: ASGIApp, context: EdgeContext) -> TransportConfig:
        server, longest = self._config.server, longest_body(self._config.limits.envelope_bytes)
        limits = Limits(context, server.ping_seconds, server.client_seconds, longest)
        return TransportConfig(app, limits, keep_alive_seconds=server.keep_alive_seconds)

    async def _start_processing(self) -> None:
        await self._depend(NEEDED_TO_PROCESS)
        self._pipeline = await self._factory.pipeline()
        self._consuming = self._watch(self._pipeline.run, "pipeline")
        self._watch((await self._factory.sweeper()).run, "sweeper")

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
        return [*api.routes(), openapi.route()]

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

    def _ports(self) -> list[int]:
        server = self._config.server
        if self._service == "serve":
            return list(dict.fromkeys([server.api_port, server.ws_port]))
        if self._service == "serve-api":
            return [server.api_port]
        if self._service == "serve-ws":
            return [server.ws_port]
        return [] if self._config.process.port is None else [self._config.process.port]

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

    def _say_hello(self, admin: Server) -> None:
        config, host, admin_host = self._config, self._config.server.host, self._config.server.admin_host
        LOG.info(
            "ready",
            service=self._service,
            pid=os.getpid(),
            version=__version__,
            listening=_urls(*self._servers),
            admin=_urls(admin),
            node=self._factory.node,
        )
        if not is_loopback(admin_host):
            LOG.warning("metrics are served beyond loopback; allow your own network only", admin_host=admin_host)
        if self._service == "process":
            return
        if config.auth.signs_tokens:
            LOG.info(
                "tokens are signed by the embedded key: `router token USER` prints one",
                data_dir=str(config.embedded.data_dir),
            )
        if not is_loopback(host):
            LOG.warning("listening beyond loopback; put a proxy with TLS in front", host=host)

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
