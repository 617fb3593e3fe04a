"""One line for each request that is answered. Who asks, the query and what is sent stay out of it."""

from __future__ import annotations

from router.logs import logger

LOG = logger(__name__)
UNREAD = "-"
"""The method of a request that could not be read."""
OTHER = "other"
"""The route of a request for what is not served: its path could be anything, a token too."""


class AccessLog:
    """Tells of requests. The request id and the trace id are in the context of the line."""

    def ended(self, method: str, route: str, status: int, seconds: float, size: int) -> None:
        """An answer of ``size`` bytes, without its header fields, took ``seconds``; that of a WebSocket, until it
        closed."""
        LOG.info("request", method=method, route=route, status=status, seconds=round(seconds, 6), bytes=size)
