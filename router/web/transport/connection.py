"""What both protocols do with a client: cut it off, refuse it, and count the memory that it uses in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog
import uvicorn

from router.errors import RouterError
from router.logs import request_fields
from router.metrics import Cut
from router.web import problems
from router.web.access_log import OTHER, UNREAD
from router.web.headers import Headers
from router.web.request_ids import trace_id_of
from router.web.transport.limits import LimitedConfig, Limits
from router.web.transport.lingering_close import LingeringClose
from router.web.transport.staged_transport import StagedTransport
from router.web.transport.stalled_writer import StalledWriter

SMALL_BYTES = 4096
"""Bodies of one connection up to this size are not counted."""


class ClientConnection(asyncio.Protocol):
    """A mixin for a protocol of uvicorn, which provides the attributes that are named first."""

    config: uvicorn.Config
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _writer: StalledWriter | None = None
    _unsent = 0
    _body_bytes = 0
    """Of all requests that are not answered, complete or not."""

    @property
    def limits(self) -> Limits:
        assert isinstance(self.config, LimitedConfig), "the server is set up with it"
        return self.config.limits

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writer()
        self._unsent = self.transport.get_write_buffer_size()
        self._account_memory()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = 0
        self._account_memory()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.context.connections.leave()
        self.limits.memory.release(self)
        if self._writer is not None:
            self._writer.stop()
        if self._lingering is not None:
            self._lingering.over()
        super().connection_lost(exc)

    @property
    def _staged(self) -> StagedTransport:
        assert isinstance(self.transport, StagedTransport), "it is made with the connection"
        return self.transport

    @property
    def _lingering(self) -> LingeringClose | None:
        return self._staged.lingering

    def _account_memory(self) -> None:
        bodies = self._body_bytes if self._body_bytes > SMALL_BYTES else 0
        if size := self._unsent + bodies:
            self.limits.memory.hold(self, size)
        else:
            self.limits.memory.release(self)

    def _watch_writer(self) -> None:
        if self._writer is None:
            self._writer = StalledWriter(self.transport, self.loop, self.limits.client_seconds)
        self._writer.watch(partial(self.cut, "slow-reader"))

    def cut(self, reason: Cut) -> None:
        """End the connection now, whatever is still to be sent."""
        self.limits.context.refusals.cut(reason)
        self.transport.abort()

    def refuse(self, error: RouterError, known: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer a request that never reaches the application, and close; ``known``: the header fields that have
        come."""
        context, asked = self.limits.context, Headers({"headers": known})
        id_ = context.request_ids.of(asked)
        response = problems.response(error)
        with structlog.contextvars.bound_contextvars(**request_fields(id_, trace_id_of(asked))):
            context.refusals.refused(error)
            if context.access_log is not None:
                context.access_log.ended(UNREAD, OTHER, response.status_code, 0.0, len(response.body))
        head = b"HTTP/1.1 %d %b\r\n" % (response.status_code, problems.kind_of(error).title.encode())
        common = context.common_headers(id_, asked.get("origin"))
        fields = [(b"connection", b"close"), *response.raw_headers, *common]
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"%b%b\r\n%b" % (head, lines, bytes(response.body)))
        self._staged.close_in_stages()
