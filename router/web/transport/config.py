"""uvicorn's configuration for a port with limits."""

from __future__ import annotations

from starlette.types import ASGIApp

from router.web.transport.http import HttpProtocol
from router.web.transport.limits import LimitedConfig, Limits
from router.web.transport.websocket import MAX_FRAME_BYTES, WebSocketProtocol

GRACEFUL_SECONDS = 1
"""A server that closes waits no longer: requests that were under way when the process was told to stop have had their
time."""


class TransportConfig(LimitedConfig):
    """Speaks HTTP and WebSocket within ``limits``."""

    def __init__(self, app: ASGIApp, limits: Limits, *, keep_alive_seconds: int) -> None:
        """An idle connection is closed after ``keep_alive_seconds``."""
        self.limits = limits
        super().__init__(
            app,
            loop="none",
            http=HttpProtocol,
            ws=WebSocketProtocol,
            ws_per_message_deflate=False,
            ws_ping_interval=limits.ping_seconds,
            ws_ping_timeout=limits.ping_seconds,
            ws_max_size=MAX_FRAME_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )
