"""What an application and the transport beneath it share: an answer looks the same, whichever of them gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router import ids
from router.metrics import Metrics
from router.sampling import Later, in_loop
from router.web.cors import Cors
from router.web.refusals import RefusalLog
from router.web.request_ids import RequestIds
from router.web.transport.connection_limit import ConnectionLimit


class EdgeContext:
    """For all ports that strangers see, or for the admin port: origins, request ids, the log of refusals, and how many
    connections there may be."""

    def __init__(
        self,
        allowed_origins: Sequence[str],
        metrics: Metrics,
        most_connections: int | None = None,
        later: Later = in_loop,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        """``most_connections`` may be open at once, on all ports together; any number, if unset. ``entropy`` gives the
        random bytes of what clients see and are to learn nothing from."""
        self.metrics = metrics
        self.entropy = entropy or ids.Entropy()
        self.cors = Cors(allowed_origins)
        self.request_ids = RequestIds(self.entropy)
        self.refusals = RefusalLog(metrics, later)
        self.connections = ConnectionLimit(most_connections)

    def common_headers(self, request_id: str, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Those of every answer, errors included; ``origin`` is the page that asks, where a browser says it."""
        return [(b"x-request-id", request_id.encode()), *self.cors.headers(origin)]
