"""uvicorn's protocols with the bounds that they lack.

Nobody holds a connection or memory by being slow, by talking without end, or by not listening.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

import structlog
import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request

from router.errors import RouterError
from router.metrics import Cut
from router.web import addressing, problems
from router.web.budget import Budget
from router.web.context import EdgeContext
from router.web.headers import Headers
from router.web.joined import Joined, LastStage, Pace
from router.web.parsing import Parser
from router.web.problems import HeadersTooLarge, HeadersTooSlow, MalformedRequest

HEADER_BYTES = 64 * 1024
"""Request line and headers together."""
WAITING_BYTES = 128 * 1024 * 1024
"""What all clients together may make this process keep: answers that they do not take, bodies that are not answered."""
SMALL_BYTES = 4096
"""The bodies of one connection that count for nothing."""
KEPT_BYTES = 16 * 1024
"""A longer body, or one in chunks, that is refused before it is whole is not read to its end to keep its connection."""
MAX_FRAME_BYTES = 4096
MAX_FRAMES = 100
FRAME_SECONDS = 10.0
"""A client may send this many frames in this time, pings included."""
MAX_PIPELINED = 100
"""A client may have this many requests wait on one connection behind the one that is being answered."""
PING_BYTES = 4
GRACEFUL_SECONDS = 1
"""A server that closes waits no longer; what was under way when the process was told to stop has had its time."""
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
INTERNAL_ERROR = 1011

SOCKET_PATH = b"/connect"
"""The one route that is an upgrade."""
PEER = "router.peer"
"""In the scope of a WebSocket: its ``BoundedSocket``, which can ping."""
ARRIVED = "router.arrived"
"""In the scope of a request whose whole body is there: nobody needs to wait for it, nor to time that."""
PAYER = "router.payer"
"""In the scope of a request whose body is not charged yet: is told how many bytes of it came, whoever read them."""


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration, and what the protocols of this module need beside it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        ping_seconds: float,
        client_seconds: float,
        keep_alive_seconds: int,
        context: EdgeContext,
        longest_body: int = sys.maxsize,
    ) -> None:
        """``context`` is told of each request refused and each client cut off, with the reason. ``longest_body``: every
        route refuses one that says that it has more bytes, so nothing of it is kept."""
        self.longest_body = longest_body
        self.ping_seconds = ping_seconds
        self.client_seconds = client_seconds
        self.context = context
        self.waiting = Budget(WAITING_BYTES)
        self.closing = Pace()
        super().__init__(
            app,
            loop="none",
            http=BoundedHttp,
            ws=BoundedSocket,
            ws_per_message_deflate=False,
            ws_ping_interval=ping_seconds,
            ws_ping_timeout=ping_seconds,
            ws_max_size=MAX_FRAME_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
        )


class _Watched(asyncio.Protocol):
    """Cuts off a peer that takes nothing of what it is sent: closing would wait for it without end."""

    config: uvicorn.Config
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _unwritten = 0
    _unsent = 0
    _body_bytes = 0
    """Of requests that are not answered, whether they are whole or not."""
    _watch: asyncio.TimerHandle | None = None

    @property
    def bounds(self) -> BoundedConfig:
        assert isinstance(self.config, BoundedConfig), "the server is set up with it"
        return self.config

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()
        self._unsent = self.transport.get_write_buffer_size()
        self._weigh()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unsent = 0
        self._weigh()

    def connection_lost(self, exc: Exception | None) -> None:
        self.bounds.context.connections.leave()
        self.bounds.waiting.release(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._last_stage is not None:
            self._last_stage.over()
        super().connection_lost(exc)

    @property
    def _joined(self) -> Joined:
        assert isinstance(self.transport, Joined), "it is made with the connection"
        return self.transport

    @property
    def _last_stage(self) -> LastStage | None:
        return self._joined.last_stage

    def _weigh(self) -> None:
        bodies = self._body_bytes if self._body_bytes > SMALL_BYTES else 0
        if size := self._unsent + bodies:
            self.bounds.waiting.hold(self, size)
        else:
            self.bounds.waiting.release(self)

    def _look_later(self) -> None:
        self._unwritten = self.transport.get_write_buffer_size()
        if self._watch is None and self._unwritten:
            self._watch = self.loop.call_later(self.bounds.client_seconds, self._look)

    def _look(self) -> None:
        self._watch = None
        if 0 < self._unwritten <= self.transport.get_write_buffer_size():
            self.cut("slow-reader")
        else:
            self._look_later()

    def cut(self, reason: Cut) -> None:
        """End the connection now, whatever is still to be sent."""
        self.bounds.context.refusals.cut(reason)
        self.transport.abort()

    def refuse(self, error: RouterError, known: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer a request that never reaches the application, and close; ``known`` of its header fields have come."""
        asked = Headers({"headers": known})
        id_ = self.bounds.context.request_ids.of(asked)
        with structlog.contextvars.bound_contextvars(request_id=id_):
            self.bounds.context.refusals.refused(error)
        response = problems.response(error)
        head = b"HTTP/1.1 %d %b\r\n" % (response.status_code, problems.kind_of(error).title.encode())
        common = self.bounds.context.common_headers(id_, asked.get("origin"))
        fields = [(b"connection", b"close"), *response.raw_headers, *common]
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"%b%b\r\n%b" % (head, lines, bytes(response.body)))
        self._joined.close_in_stages()


class _Body(Struct):
    """Of a request that is not answered, whether it is whole or not."""

    scope: Mapping[str, Any]
    is_kept: bool = True
    """Every route refuses it otherwise, since it says that it is too long."""
    size: int = 0
    """Bytes that have come."""

    @property
    def held(self) -> int:
        """Bytes that are in memory."""
        return self.size if self.is_kept else 0


class _Ended(Exception):
    """Stops the parser: the connection has ended, whatever else has come by it."""


class BoundedHttp(_Watched, HttpToolsProtocol):
    """HTTP: headers have a size and a time, and a refused body ends in time too. Accepted bodies are the API's."""

    _ignores = False
    """What is being read asks for a protocol that it does not get."""
    _in_head = False
    _in_body = False
    _head_bytes = 0
    _unanswered = 0
    """Requests whose headers have come."""
    _keeps = False
    """What comes last asks that the connection goes on behind it."""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(Joined(transport, self.loop, self.bounds.client_seconds, self.bounds.closing))
        self._bodies: deque[_Body] = deque()
        self.parser = Parser(self.without_upgrade, self)  # type: ignore[assignment]  # all of one that uvicorn calls
        self._expect()
        if not self.bounds.context.connections.enter():
            self.cut("no-room")

    def handle_websocket_upgrade(self) -> None:
        if self._unanswered > 1:
            # What is owed would be written between the frames.
            self.cut("pipelining")
            return
        self._joined.upgrade()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        self._met()
        for body in self._bodies:
            _charge(body.scope, body.size)
        super().connection_lost(exc)
        if self.cycle is not None:
            # Whoever waits for their turn, to learn that the client is gone, keeps no body meanwhile.
            self.cycle.body = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._last_stage is not None:
            _charge(cast(Mapping[str, Any] | None, self.scope), len(data))
            self._last_stage.discard(data)
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            self._expect()
            if self._head_bytes > HEADER_BYTES and not self.transport.is_closing():
                self.refuse(_too_large(), self.headers)
        elif self._in_body and self._keeps and self._is_long():
            # Until it is whole: then ``on_message_complete`` has its say.
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        # What was counted holds a part of the body too: only where it is much, the headers are worth adding up.
        if self._head_bytes > HEADER_BYTES and self._head_size() > HEADER_BYTES:
            self.refuse(_too_large(), self.headers)
            raise _Ended
        self._head_bytes = 0
        self._met()
        if len(self.pipeline) >= MAX_PIPELINED:
            self.cut("pipelining")
            raise _Ended
        if problem := addressing.problem(self.parser.get_http_version(), self.headers):
            self.refuse(MalformedRequest(problem), self.headers)
            raise _Ended
        # CONNECT asks too, without a word.
        named = any(name == b"upgrade" for name, _ in self.headers)
        self._ignores = named and self.parser.should_upgrade() and not self._should_upgrade()
        if self._ignores:
            return
        self.url = addressing.in_origin_form(self.url)
        super().on_headers_complete()
        self._in_head, self._in_body = False, True
        self._unanswered += 1
        # An upgrade has no cycle.
        self._keeps = getattr(self.cycle, "keep_alive", False)
        is_kept = self._content_length() <= self.bounds.longest_body
        self._bodies.append(_Body(cast(Mapping[str, Any], self.scope), is_kept))

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            _charge(self.cycle.scope, len(body))
        else:
            self._bodies[-1].size += len(body)
            if not self._bodies[-1].is_kept:
                body = b""
            self._body_bytes += len(body)
            if self._body_bytes > SMALL_BYTES:
                self._weigh()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ignores:
            return
        self._head_bytes = 0
        self._in_body = False
        self._met()
        if self._keeps and not self.cycle.response_started:
            self.cycle.keep_alive = True
        self.scope[ARRIVED] = True  # type: ignore[literal-required]  # a server may add its own (ASGI 3, "scope")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        self._forget_body()
        self._joined.release()
        if self._in_body and self.cycle.response_complete:
            # Refused before it was complete: the rest is discarded, but must still end in time.
            self._expect()
        super().on_response_complete()
        if self.pipeline:
            # uvicorn reads on with each answer, and what is read with one can be thousands of requests.
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what its parser cannot read, or has stopped reading since a callback of ours refused."""
        del msg
        if not self.transport.is_closing():
            self.refuse(MalformedRequest("this is not an HTTP request"), self.headers or ())

    def refuse(self, error: RouterError, known: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self._owes:
            # An answer now would be taken for that which is owed, or for a part of it.
            self.cut("pipelining")
            return
        super().refuse(error, known)
        if self._in_body:
            # Nothing more is read for the application.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    @property
    def _owes(self) -> bool:
        """An answer has begun, or is to come before one to what is being read."""
        if self._in_body:
            return self._unanswered != 1 or self.cycle.response_started
        return self._unanswered > 0

    def shutdown(self) -> None:
        self._keeps = False
        super().shutdown()
        if self.transport.is_closing():
            self._joined.end()

    def without_upgrade(self) -> bytes | None:
        """The head of the request that has just been read, as if it had asked for nothing; ``None`` where it may."""
        if not self._ignores:
            return None
        self._ignores = False
        fields = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        return b"\r\n".join([start, *fields, b"", b""])

    def _should_upgrade(self) -> bool:
        # RFC 9110, section 7.8: not in HTTP/1.0, where nobody in between would know that it is a socket.
        wanted = super()._should_upgrade() and self.parser.get_http_version() == "1.1"
        return wanted and addressing.in_origin_form(self.url).partition(b"?")[0] == SOCKET_PATH

    def _unsupported_upgrade_warning(self) -> None:
        """CONNECT, which is answered like any other method; strangers shall not fill the log."""

    def _forget_body(self) -> None:
        """The first of those that were not answered is."""
        body, counted = self._bodies.popleft(), self._body_bytes > SMALL_BYTES
        _charge(body.scope, body.size)
        self._body_bytes -= body.held
        if counted:
            self._weigh()

    def _is_long(self) -> bool:
        """Whether what is being read may have a body that is not worth reading for the sake of the connection."""
        return not 0 <= self._content_length() <= KEPT_BYTES

    def _content_length(self) -> int:
        """-1 where the request does not say; the parser has seen that it is a number, and one only."""
        return next((int(value) for name, value in self.headers if name == b"content-length"), -1)

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)

    def _expect(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.bounds.client_seconds, self._too_slow)

    def _met(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._in_head:
            error = HeadersTooSlow(f"the headers did not arrive within {self.bounds.client_seconds:g} s")
            self.refuse(error, self.headers)
        else:
            self.cut("slow-body" if self._in_body else "silent")


def _charge(scope: Mapping[str, Any] | None, size: int) -> None:
    """``size`` bytes of the body of this request have come."""
    payer: Callable[[int], None] | None = None if scope is None else scope.get(PAYER)
    if payer is not None:
        payer(size)


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"request line and headers may have at most {HEADER_BYTES} bytes")


def _no_handshake(error: Exception | None) -> MalformedRequest:
    """Names the header and not its value, which may be the token."""
    what = f"look at {error.name}" if isinstance(error, InvalidHeader) else "it is a GET"
    return MalformedRequest(f"this is not a WebSocket handshake (RFC 6455, section 4.1): {what}")


class BoundedSocket(_Watched, WebSocketsSansIOProtocol):
    """WebSocket: every frame counts, also those that never reach the application, and a dead peer is cut off."""

    _frames = 0
    _frames_since = 0.0

    def ping(self) -> None:
        """Ask the peer for an answer now, unless it owes one. Before the upgrade, and at the end, nobody is asked."""
        if self.ping_timer is not None:
            self.ping_timer.cancel()
            self.send_keepalive_ping()

    def send_keepalive_ping(self) -> None:
        """As uvicorn's, with bytes that nobody can foresee: those of Python's own generator tell, once 624 of them are
        known, how many others were pinged in between."""
        self.ping_timer = None
        if self.close_sent or self.transport.is_closing():
            return
        self.pending_ping_payload = self.bounds.context.entropy(PING_BYTES)
        self.ping_sent_at = self.loop.time()
        self.conn.send_ping(self.pending_ping_payload)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.pong_timer = self.loop.call_later(self.bounds.ping_seconds, self.keepalive_timeout)

    @property
    def silent_seconds(self) -> float:
        """For how long the peer has owed the answer to a ping; 0 where it owes none."""
        return 0.0 if self.pending_ping_payload is None else self.loop.time() - self.ping_sent_at

    def handle_connect(self, event: Request) -> None:
        # uvicorn would answer what websockets refuses in plain text, and nobody would hear of it.
        if self.conn.accept(event).status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            self.scope[PEER] = self  # type: ignore[literal-required]  # a server may add its own (ASGI 3, "scope")
        else:
            known = [(name.lower().encode(), value.encode("latin-1")) for name, value in event.headers.raw_items()]
            self.refuse(_no_handshake(self.conn.handshake_exc), known)

    def data_received(self, data: bytes) -> None:
        if self._last_stage is not None:
            self._last_stage.discard(data)
            return
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # A handshake that websockets cannot read is left without an answer otherwise.
            self.refuse(HeadersTooLarge("a WebSocket handshake may have at most 128 headers of 8 KiB, and no body"))

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            # The handshake with its token, which uvicorn keeps for as long as the socket lives.
            del self.request, self.response
        # A refused handshake is complete too; uvicorn would log it as an error of the application.
        self.handshake_complete = self.handshake_complete or self.close_sent

    def handle_events(self) -> None:
        if self._within_bound(len(self.conn.events)):
            super().handle_events()
        else:
            self.conn.events_received()
            self.conn.fail(POLICY_VIOLATION, "too many frames")
            self._end("too-many-frames")

    def _within_bound(self, frames: int) -> bool:
        now = self.loop.time()
        if now - self._frames_since > FRAME_SECONDS:
            self._frames_since, self._frames = now, 0
        self._frames += frames
        return self._frames <= MAX_FRAMES

    def shutdown(self) -> None:
        if self._last_stage is None:
            super().shutdown()
        else:
            self._joined.end()

    def handle_parser_exception(self) -> None:
        self._end("bad-frame")

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        if not self.transport.is_closing():
            self.conn.fail(INTERNAL_ERROR, "keepalive ping timeout")
            self._end("no-pong")
            self._joined.end()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._look_later()

    def _end(self, reason: Cut) -> None:
        """Send the close frame, as far as the peer still listens, and end the connection; its task ends with it."""
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.get_write_buffer_size():
            self.cut(reason)
        else:
            self.bounds.context.refusals.cut(reason)
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._joined.close_in_stages()
