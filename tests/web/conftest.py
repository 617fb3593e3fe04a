"""The API over the real embedded components, without a socket in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from router.auth.embedded import EmbeddedKey
from router.auth.verifier import Authenticator
from router.config import Auth
from router.core.acceptance import Acceptor
from router.core.connections import ConnectionManager
from router.core.pipeline import Pipeline
from router.core.readiness import Readiness
from router.core.send_limits import SendLimits
from router.core.work_budget import WorkBudget
from router.factory import Factory
from router.spans import Spans
from router.web import documents
from router.web.api import Api
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.health import Health
from router.web.poke_sockets import Sockets
from router.web.traced_requests import TracedRequests
from router.web.transport.server import Server
from tests.support.clock import ManualClock
from tests.support.edge import server
from tests.support.stores import EmbeddedStores

APPS = ("capacitor://localhost", "tauri://localhost", "app://-", f"chrome-extension://{32 * 'a'}")
"""Origins of apps, listed beside that of a page."""
ENVELOPE_BYTES = 300
BODY_SECONDS = 25.0
WORK_RATE = 1000
WORK_BURST = 1_000_000
OUTBOUND_BYTES = 65_536
PAIR_BURST = 8
"""More than a sender may send at once, so that only who means to meets it."""


class Passing:
    """A clock in whose time nobody waits for long: whoever sleeps lets it pass."""

    def __init__(self, clock: ManualClock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic
        self._advance = clock.advance

    async def sleep(self, seconds: float) -> None:
        self._advance(seconds)
        await asyncio.sleep(0)


@dataclass
class Web:
    """A client of the API, and what is behind it."""

    http: httpx.AsyncClient
    admin: httpx.AsyncClient
    factory: Factory
    key: EmbeddedKey
    clock: ManualClock
    readiness: Readiness
    pipeline: Pipeline
    manager: ConnectionManager
    app: ASGIApp
    context: EdgeContext
    work: WorkBudget
    limits: SendLimits

    def token(self, user: str, ttl_seconds: float = 600) -> str:
        return self.key.sign(user, self.clock.now(), ttl_seconds)

    def bearer(self, user: str, ttl_seconds: float = 600) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(user, ttl_seconds)}", "content-type": "application/json"}

    def serve(self, *, ping_seconds: float = 20, client_seconds: float = 20) -> Server:
        """The same application on a real port."""
        return server(self.app, self.context, ping_seconds=ping_seconds, client_seconds=client_seconds)

    async def route(self) -> None:
        """Route all that was accepted."""
        consumer, producer = await self.factory.ingress_consumer(), await self.factory.ingress_producer()
        while (backlog := await producer.backlog()) is not None and backlog.messages:
            self.pipeline.take(await consumer.receive(100))
            await self.pipeline.finish()

    def count(self, metric: str, **labels: str) -> float:
        return self.factory.metrics.registry.get_sample_value(metric, labels) or 0.0


def client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router")


@pytest.fixture
async def web(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Web]:
    del anyio_backend
    async with opened(tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(data_dir: Path, open_spans: Callable[[str], Spans] | None = None) -> AsyncIterator[Web]:
    """The API over components that keep their state in ``data_dir``."""
    clock = ManualClock()
    async with Factory(EmbeddedStores(data_dir).config(), clock=clock, open_spans=open_spans) as factory:
        key = EmbeddedKey.open(data_dir)
        limits = SendLimits(
            clock,
            factory.entropy,
            rate=1,
            burst=5,
            pair_rate=0.5,
            pair_burst=PAIR_BURST,
            outbound_bytes=OUTBOUND_BYTES,
            outbound_bytes_per_second=256,
        )
        acceptor = Acceptor(
            await factory.ingress_producer(),
            limits,
            clock=clock,
            entropy=factory.entropy,
            idempotency_secret=b"secret",
            max_bytes=ENVELOPE_BYTES,
            metrics=factory.metrics,
        )
        work = WorkBudget(clock=Passing(clock), rate=WORK_RATE, burst=WORK_BURST)
        authenticator = Authenticator(key, Auth(), clock)
        context = EdgeContext(["https://chat.example", *APPS], factory.metrics)
        api = Api(
            authenticator,
            acceptor,
            await factory.message_queue(),
            work,
            envelope_bytes=ENVELOPE_BYTES,
            body_seconds=BODY_SECONDS,
            refused=context.refusals.refused,
        )
        readiness = Readiness(clock)
        health = Health(readiness, factory.metrics)
        manager = await factory.connection_manager()
        sockets = Sockets(authenticator, manager, work, context.cors)
        timer = asyncio.get_running_loop().time
        routes = [*api.routes(), *documents.routes(), *health.public_routes(), *sockets.routes()]
        app: ASGIApp = Application(routes, context, timer)
        if factory.spans is not None:
            app = TracedRequests(app, factory.spans)
        admin_app = Application(health.admin_routes(), context, timer)
        async with client(app) as http, client(admin_app) as admin:
            pipeline = await factory.pipeline()
            yield Web(http, admin, factory, key, clock, readiness, pipeline, manager, app, context, work, limits)
