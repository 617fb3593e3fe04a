"""WebSocket: every frame counts, also those that never reach the application, and a dead peer is cut off."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from websockets.exceptions import InvalidHeader
from websockets.frames import CloseCode
from websockets.http11 import Request

from router.metrics import Cut
from router.web.problems import HeadersTooLarge, MalformedRequest
from router.web.transport.connection import ClientConnection
from router.web.transport.scope import PEER
from router.web.transport.uvicorn_internals import ASGISendEvent, WebSocketsSansIOProtocol

MAX_FRAME_BYTES = 4096
MAX_FRAMES = 100
FRAME_SECONDS = 10.0
"""A client may send this many frames in this time, pings included."""
PING_BYTES = 4
PING_STEPS = 80
"""In the time between two pings. Sockets that are due in one step are pinged at one moment: each apart would wake the
process for every ping and every pong."""
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
INTERNAL_ERROR = 1011
# websockets itself closes with these.
PROTOCOL_ERROR = int(CloseCode.PROTOCOL_ERROR)
INVALID_TEXT = int(CloseCode.INVALID_DATA)
FRAME_TOO_LARGE = int(CloseCode.MESSAGE_TOO_BIG)
CLOSE_CODES = (PROTOCOL_ERROR, INVALID_TEXT, POLICY_VIOLATION, FRAME_TOO_LARGE, INTERNAL_ERROR)


class WebSocketProtocol(ClientConnection, WebSocketsSansIOProtocol):
    """WebSocket: every frame counts, also those that never reach the application, and a dead peer is cut off."""

    _frames = 0
    _frames_since = 0.0

    def schedule_ping(self) -> None:
        now, seconds = self.loop.time(), self.limits.ping_seconds
        step = seconds / PING_STEPS
        due = max(now + step, (self.ping_sent_at or now) + seconds)
        self.ping_timer = self.loop.call_at(due - due % step, self.send_keepalive_ping)

    def ping(self) -> None:
        """Ping the peer, unless it owes a pong. Before the upgrade, and once the socket closes, this does nothing."""
        if self.ping_timer is not None:
            self.ping_timer.cancel()
            self.send_keepalive_ping()

    def send_keepalive_ping(self) -> None:
        """Like uvicorn's, with bytes that nobody can predict. uvicorn's come from Python's generator: a client that
        knows 624 of its outputs can tell how many pings others got in between."""
        self.ping_timer = None
        if self.close_sent or self.transport.is_closing():
            return
        self.pending_ping_payload = self.limits.context.entropy(PING_BYTES)
        self.ping_sent_at = self.loop.time()
        self.conn.send_ping(self.pending_ping_payload)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.pong_timer = self.loop.call_later(self.limits.ping_seconds, self.keepalive_timeout)

    @property
    def silent_seconds(self) -> float:
        """For how many seconds the peer has owed a pong; 0 if it owes none."""
        return 0.0 if self.pending_ping_payload is None else self.loop.time() - self.ping_sent_at

    def handle_connect(self, event: Request) -> None:
        # If websockets refuses a handshake, uvicorn answers in plain text, and neither counts nor logs it.
        if self.conn.accept(event).status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            self.scope[PEER] = self  # type: ignore[literal-required]  # a server may add its own (ASGI 3, "scope")
        else:
            known = [(name.lower().encode(), value.encode("latin-1")) for name, value in event.headers.raw_items()]
            self.refuse(_no_handshake(self.conn.handshake_exc), known)

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None:
            self._lingering.discard(data)
            return
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # Without this, a handshake that websockets cannot read gets no answer.
            self.refuse(HeadersTooLarge("a WebSocket handshake may have at most 128 headers of 8 KiB, and no body"))

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept":
            # Drop the handshake with its token, which uvicorn would keep for as long as the socket lives.
            del self.request, self.response
        # A refused handshake is complete too; otherwise uvicorn would log it as an error of the application.
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
        if self._lingering is None:
            super().shutdown()
        else:
            self._staged.end()

    def handle_parser_exception(self) -> None:
        self._end("bad-frame")

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        if not self.transport.is_closing():
            self.conn.fail(INTERNAL_ERROR, "keepalive ping timeout")
            self._end("no-pong")
            self._staged.end()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._watch_writer()

    def _end(self, reason: Cut) -> None:
        """Send the close frame, if the peer still reads, and end the connection; its task ends with it."""
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.get_write_buffer_size():
            self.cut(reason)
        else:
            self.limits.context.refusals.cut(reason)
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._staged.close_in_stages()


def _no_handshake(error: Exception | None) -> MalformedRequest:
    """The error names the header, but not its value, which may be the token."""
    what = f"look at {error.name}" if isinstance(error, InvalidHeader) else "it is a GET"
    return MalformedRequest(f"this is not a WebSocket handshake (RFC 6455, section 4.1): {what}")
