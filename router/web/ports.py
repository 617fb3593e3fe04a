"""The ports of a service: which they are, what is between them and an application, and what the log says of them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from router import __version__, logs
from router.config import Config, Service
from router.config.combinations import is_loopback
from router.metrics import Metrics
from router.web.api import longest_body
from router.web.application import Application
from router.web.context import EdgeContext
from router.web.health import Health
from router.web.transport.config import TransportConfig
from router.web.transport.limits import Limits
from router.web.transport.listeners import ADMIN
from router.web.transport.server import Server

LOG = logs.logger("router.service")
ADMIN_CONNECTIONS = 32
"""Concurrent connections to the admin port; the process reserves files for them."""


def public_ports(config: Config, service: Service) -> list[int]:
    """Those that the world sees, each once; 0 is one that the system chooses."""
    server = config.server
    if service == "serve":
        return list(dict.fromkeys([server.api_port, server.ws_port]))
    if service == "serve-api":
        return [server.api_port]
    if service == "serve-ws":
        return [server.ws_port]
    return [] if config.process.port is None else [config.process.port]


def transport(config: Config, app: ASGIApp, context: EdgeContext) -> TransportConfig:
    """HTTP and WebSocket for ``app``."""
    server, longest = config.server, longest_body(config.limits.envelope_bytes)
    limits = Limits(context, server.ping_seconds, server.client_seconds, longest)
    return TransportConfig(app, limits, keep_alive_seconds=server.keep_alive_seconds)


@asynccontextmanager
async def admin_server(
    config: Config, health: Health, metrics: Metrics, entropy: Callable[[int], bytes] | None = None
) -> AsyncIterator[Server]:
    """Serves metrics, and readiness of each dependency. It has its own limit of connections, so that clients cannot
    use them up. ``metrics`` count what is asked here."""
    context = EdgeContext((), metrics, ADMIN_CONNECTIONS, entropy=entropy)
    app = Application(health.admin_routes(), context, time.monotonic)
    server = config.server
    try:
        async with Server(transport(config, app, context), server.admin_host, server.admin_port, ADMIN) as opened:
            yield opened
    finally:
        context.refusals.finish()


def say_hello(config: Config, service: Service, listening: Sequence[str], admin: Sequence[str], **more: object) -> None:
    """Log that the service is ready, and what its operator should know of its ports (URLs)."""
    server = config.server
    LOG.info(
        "ready",
        service=service,
        pid=os.getpid(),
        version=__version__,
        listening=listening,
        admin=admin,
        **more,
    )
    if not is_loopback(server.admin_host):
        LOG.warning("metrics are served beyond loopback; allow your own network only", admin_host=server.admin_host)
    if service == "process":
        return
    if config.auth.signs_tokens:
        LOG.info(
            "tokens are signed by the embedded key: `router token USER` prints one",
            data_dir=str(config.embedded.data_dir),
        )
    if not is_loopback(server.host):
        LOG.warning("listening beyond loopback; put a proxy with TLS in front", host=server.host)
