"""The API over the real embedded components, without a socket in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from router.auth.embedded import EmbeddedKey
from router.auth.verifier import Authenticator
from router.config import Auth
from router.core.accepting import Acceptor
from router.core.routing import Pipeline
from router.factory import Factory
from router.web.api import Api
from router.web.edge import Border, application
from router.web.health import Health
from tests.contract.test_embedded import factory as make_factory
from tests.support.clock import ManualClock

ENVELOPE_BYTES = 300


@dataclass
class Web:
    """A client of the API, and what is behind it."""

    http: httpx.AsyncClient
    factory: Factory
    key: EmbeddedKey
    clock: ManualClock
    health: Health
    pipeline: Pipeline

    def bearer(self, user: str, ttl_seconds: float = 600) -> dict[str, str]:
        token = self.key.sign(user, self.clock.now(), ttl_seconds)
        return {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def route(self) -> None:
        """Route all that was accepted."""
        consumer = await self.factory.ingress_consumer()
        while (await consumer.backlog()).messages:
            self.pipeline.take(await consumer.receive(100))
            await self.pipeline.finish()

    def count(self, metric: str, **labels: str) -> float:
        return self.factory.metrics.registry.get_sample_value(metric, labels) or 0.0


@pytest.fixture
async def web(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Web]:
    del anyio_backend
    clock = ManualClock()
    async with make_factory(tmp_path, clock) as factory:
        key = EmbeddedKey.open(tmp_path)
        acceptor = Acceptor(
            await factory.ingress_producer(),
            clock=clock,
            entropy=factory.entropy,
            idempotency_secret=b"secret",
            max_bytes=ENVELOPE_BYTES,
            rate=1,
            burst=5,
            metrics=factory.metrics,
        )
        api = Api(
            Authenticator(key, Auth(), clock),
            acceptor,
            await factory.message_queue(),
            envelope_bytes=ENVELOPE_BYTES,
            body_seconds=20,
        )
        health = Health(factory.metrics)
        border = Border(["https://chat.example"], factory.metrics)
        transport = httpx.ASGITransport(application([*api.routes(), *health.routes()], border))
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as http:
            yield Web(http, factory, key, clock, health, await factory.pipeline())
