"""The internals of uvicorn and websockets that this package uses, and that neither promises to keep.

Calls are listed with their arguments; everything else is an attribute. ``tests/web/test_internals.py`` compares the
list with the installed releases, and with what the modules of this package use.
"""

from __future__ import annotations

from collections.abc import Mapping

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server
from websockets.server import ServerProtocol

__all__ = [
    "RELIED_ON",
    "STATUS_LINE",
    "ASGISendEvent",
    "HttpToolsProtocol",
    "RequestResponseCycle",
    "WebSocketsSansIOProtocol",
]

_BOTH = (
    "config",
    "connection_lost(exc)",
    "data_received(data)",
    "loop",
    "pause_writing()",
    "resume_writing()",
    "scope",
    "shutdown()",
    "transport",
)
RELIED_ON: Mapping[type, tuple[str, ...]] = {
    HttpToolsProtocol: (
        *_BOTH,
        "_start_asgi_task(cycle, app)",
        "access_logger",
        "app",
        "expect_100_continue",
        "logger",
        "server_state",
        "_should_upgrade()",
        "_unsupported_upgrade_warning()",
        "connection_made(transport)",
        "cycle",
        "flow",
        "handle_websocket_upgrade()",
        "headers",
        "on_body(body)",
        "on_headers_complete()",
        "on_message_begin()",
        "on_message_complete()",
        "on_response_complete()",
        "parser",
        "pipeline",
        "send_400_response(msg)",
        "url",
    ),
    RequestResponseCycle: (
        "body",
        "default_headers",
        "disconnected",
        "flow",
        "keep_alive",
        "message_event",
        "on_response",
        "response_complete",
        "response_started",
        "scope",
        "send(message)",
        "transport",
    ),
    FlowControl: ("pause_reading()",),
    WebSocketsSansIOProtocol: (
        *_BOTH,
        "close_sent",
        "conn",
        "handle_connect(event)",
        "handle_events()",
        "handle_parser_exception()",
        "handshake_complete",
        "handshake_initiated",
        "keepalive_timeout()",
        "on_task_complete(task)",
        "pending_ping_payload",
        "ping_sent_at",
        "ping_timer",
        "pong_timer",
        "queue",
        "request",
        "response",
        "schedule_ping()",
        "send(message)",
        "send_keepalive_ping()",
    ),
    ServerProtocol: (
        "accept(request)",
        "data_to_send()",
        "events",
        "events_received()",
        "fail(code, reason)",
        "handshake_exc",
        "send_ping(data)",
    ),
    Server: (
        "capture_signals()",
        "main_loop()",
        "on_tick(counter)",
        "serve(sockets)",
        "servers",
        "should_exit",
        "started",
    ),
}
