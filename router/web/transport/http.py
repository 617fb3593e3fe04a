"""HTTP: headers have a size and a time, and a refused body ends in time too. Accepted bodies are the API's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import unquote

import httptools
from msgspec import Struct

from router.errors import RouterError
from router.web.problems import HeadersTooLarge, HeadersTooSlow, MalformedRequest
from router.web.transport import request_target
from router.web.transport.connection import SMALL_BYTES, ClientConnection
from router.web.transport.exchange import Exchange
from router.web.transport.request_parser import RequestParser
from router.web.transport.scope import ARRIVED, PAYER
from router.web.transport.staged_transport import StagedTransport
from router.web.transport.uvicorn_internals import HttpToolsProtocol

HEADER_BYTES = 64 * 1024
"""Request line and headers together."""
KEPT_BYTES = 16 * 1024
"""If a longer body, or one in chunks, is refused before it is complete, its connection closes: the rest is not read."""
MAX_PIPELINED = 100
"""Requests that may wait on one connection behind the one that is being answered."""
SOCKET_PATH = b"/connect"
"""The only route that upgrades."""


class _Body(Struct):
    """The body of a request that is not answered, complete or not."""

    scope: Mapping[str, Any]
    is_kept: bool = True
    """False if its Content-Length is more than any route takes, so that every route refuses it."""
    size: int = 0
    """Bytes that have come."""

    @property
    def held(self) -> int:
        """Bytes that are in memory."""
        return self.size if self.is_kept else 0


class _Ended(Exception):
    """Stops the parser: the connection has ended, and what else arrived is ignored."""


class HttpProtocol(ClientConnection, HttpToolsProtocol):
    """HTTP: headers have a size and a time, and a refused body ends in time too. Accepted bodies are the API's."""

    _ignores_upgrade = False
    """The request that is being read asks for an upgrade that it does not get."""
    _in_head = False
    _in_body = False
    _head_bytes = 0
    _unanswered = 0
    """Requests whose headers have come."""
    _wants_keep_alive = False
    """The request that came last asks to keep the connection open."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(
            StagedTransport(transport, self.loop, self.limits.client_seconds, self.limits.discarding)
        )
        self._bodies: deque[_Body] = deque()
        self.parser = RequestParser(self.without_upgrade, self)  # type: ignore[assignment]  # all of one that uvicorn calls
        self._start_deadline()
        if not self.limits.context.connections.enter():
            self.cut("no-room")

    def handle_websocket_upgrade(self) -> None:
        if self._unanswered > 1:
            # Answers to earlier requests would be written between the frames.
            self.cut("pipelining")
            return
        self._staged.upgrade()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        for body in self._bodies:
            _charge(body.scope, body.size)
        super().connection_lost(exc)
        if self.cycle is not None:
            # The handler learns only at its turn that the client is gone; free the body now.
            self.cycle.body = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            _charge(cast(Mapping[str, Any] | None, self.scope), len(data))
            self._lingering.discard(data)
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            self._start_deadline()
            if self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
                self.refuse(_too_large(), self.headers)
        elif self._in_body and self._wants_keep_alive and self._is_long():
            # Until the body is complete: then ``on_message_complete`` decides again.
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        # The count includes a part of the body, so add up the headers, but only if the count is large.
        if self._head_bytes > HEADER_BYTES and self._head_size() > HEADER_BYTES:
            self.refuse(_too_large(), self.headers)
            raise _Ended
        self._head_bytes = 0
        self._clear_deadline()
        if len(self.pipeline) >= MAX_PIPELINED:
            self.cut("pipelining")
            raise _Ended
        if problem := request_target.host_problem(self.parser.get_http_version(), self.headers):
            self.refuse(MalformedRequest(problem), self.headers)
            raise _Ended
        upgrades = self.parser.should_upgrade() and self._should_upgrade()
        # The parser sees CONNECT as an upgrade too, although it has no such header.
        self._ignores_upgrade = (
            not upgrades and self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers)
        )
        if self._ignores_upgrade:
            return
        self.url = request_target.in_origin_form(self.url)
        self._read_head()
        if not upgrades:
            self._begin_exchange()
        self._in_head, self._in_body = False, True
        self._unanswered += 1
        # An upgrade has no cycle.
        self._wants_keep_alive = getattr(self.cycle, "keep_alive", False)
        self._bodies.append(_Body(cast(Mapping[str, Any], self.scope)))

    def _read_head(self) -> None:
        scope, version, target = self.scope, self.parser.get_http_version(), httptools.parse_url(self.url)
        path = target.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = target.path
        scope["query_string"] = target.query or b""

    def _begin_exchange(self) -> None:
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if not self._unanswered:
            self._start_asgi_task(self.cycle, self.app)
        else:
            # It waits for the answers to those before it.
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            _charge(self.cycle.scope, len(body))
        else:
            coming = self._bodies[-1]
            if not coming.size:
                # Looked up here and not with the headers, since most requests have no body.
                coming.is_kept = self._content_length() <= self.limits.longest_body
            coming.size += len(body)
            if not coming.is_kept:
                body = b""
            self._body_bytes += len(body)
            if self._body_bytes > SMALL_BYTES:
                self._account_memory()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ignores_upgrade:
            return
        self._head_bytes = 0
        self._in_body = False
        self._clear_deadline()
        if self._wants_keep_alive and not self.cycle.response_started:
            self.cycle.keep_alive = True
        self.scope[ARRIVED] = True  # type: ignore[literal-required]  # a server may add its own (ASGI 3, "scope")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        self._forget_body()
        if self._in_body and self.cycle.response_complete:
            # The body was refused before it was complete: its rest is discarded, but must still end in time.
            self._start_deadline()
        super().on_response_complete()
        if self.pipeline:
            # uvicorn resumes reading after each answer, and one read can bring thousands of requests.
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn if its parser cannot read a request, or stopped since a callback of ours refused it."""
        del msg
        if not self.transport.is_closing():
            self.refuse(MalformedRequest("this is not an HTTP request"), self.headers or ())

    def refuse(self, error: RouterError, known: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self._answer_is_owed:
            # The client would take it for the answer to an earlier request, or for a part of that.
            self.cut("pipelining")
            return
        super().refuse(error, known)
        if self._in_body:
            # The application gets no more of the body.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    @property
    def _answer_is_owed(self) -> bool:
        """Whether an answer has begun, or earlier requests wait for theirs."""
        if self._in_body:
            return self._unanswered != 1 or self.cycle.response_started
        return self._unanswered > 0

    def shutdown(self) -> None:
        self._wants_keep_alive = False
        super().shutdown()
        if self.transport.is_closing():
            self._staged.end()

    def without_upgrade(self) -> bytes | None:
        """The head of the request that has just been read, without its ``Upgrade``; ``None`` if it keeps that."""
        if not self._ignores_upgrade:
            return None
        self._ignores_upgrade = False
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return b"\r\n".join([start, *fields, b"", b""])

    def _should_upgrade(self) -> bool:
        # RFC 9110, section 7.8: not in HTTP/1.0, since a proxy in between would not know of the upgrade.
        wanted = super()._should_upgrade() and self.parser.get_http_version() == "1.1"
        return wanted and request_target.in_origin_form(self.url).partition(b"?")[0] == SOCKET_PATH

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: CONNECT is answered like any other method, and strangers must not be able to fill the log."""

    def _forget_body(self) -> None:
        """The oldest unanswered request is answered: drop its body."""
        body, counted = self._bodies.popleft(), self._body_bytes > SMALL_BYTES
        _charge(body.scope, body.size)
        self._body_bytes -= body.held
        if counted:
            self._account_memory()

    def _is_long(self) -> bool:
        """Whether the request that is being read may have a body too long to read only to keep the connection."""
        return not 0 <= self._content_length() <= KEPT_BYTES

    def _content_length(self) -> int:
        """-1 if the request does not say. The parser has checked that it is one number."""
        return next((int(value) for name, value in self.headers if name == b"content-length"), -1)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.client_seconds, self._deadline_passed)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _deadline_passed(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._in_head:
            error = HeadersTooSlow(f"the headers did not arrive within {self.limits.client_seconds:g} s")
            self.refuse(error, self.headers)
        else:
            self.cut("slow-body" if self._in_body else "silent")


def _charge(scope: Mapping[str, Any] | None, size: int) -> None:
    """Charge for ``size`` bytes of the request's body, which have arrived."""
    payer: Callable[[int], None] | None = None if scope is None else scope.get(PAYER)
    if payer is not None:
        payer(size)


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"request line and headers may have at most {HEADER_BYTES} bytes")
