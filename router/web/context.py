"""What an application and the transport beneath it share, so that the answers of both look the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router import ids
from router.metrics import Metrics
from router.sampling import Later, in_loop
from router.web.access_log import AccessLog
from router.web.cors import Cors
from router.web.refusals import RefusalLog
from router.web.request_ids import RequestIds
from router.web.transport.connection_limit import ConnectionLimit


class EdgeContext:
    """Origins, request ids, the log of refusals and the limit of connections. All ports that strangers see share one;
    the admin port has its own."""

    def __init__(
        self,
        allowed_origins: Sequence[str],
        metrics: Metrics,
        most_connections: int | None = None,
        later: Later = in_loop,
        entropy: Callable[[int], bytes] | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        """``most_connections`` may be open at once, on all ports together; unlimited if ``None``. ``entropy`` gives
        random bytes for values that clients see, so that they reveal nothing."""
        self.metrics = metrics
        self.entropy = entropy or ids.Entropy()
        self.cors = Cors(allowed_origins)
        self.request_ids = RequestIds(self.entropy)
        self.refusals = RefusalLog(metrics, later)
        self.access_log = access_log
        self.connections = ConnectionLimit(most_connections)

    def common_headers(self, request_id: str, origin: str | None) -> list[tuple[bytes, bytes]]:
        """The header fields of every answer, errors included; ``origin`` is the page that asks, if a browser names
        it."""
        return [(b"x-request-id", request_id.encode()), *self.cors.headers(origin)]
