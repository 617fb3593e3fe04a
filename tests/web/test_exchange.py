"""An answer is one piece and one write, and nothing that a client says ends a line of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from router.web.transport.config import TransportConfig
from router.web.transport.http import HttpProtocol
from router.web.transport.limits import Limits
from tests.support.edge import eventually
from tests.web.conftest import Web
from tests.web.recorder import Recorder

pytestmark = pytest.mark.anyio
Connect = Callable[[ASGIApp], tuple[HttpProtocol, Recorder]]
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def connect(web: Web) -> Connect:
    """A connection to an application, without a network."""

    def connected(app: ASGIApp) -> tuple[HttpProtocol, Recorder]:
        config = TransportConfig(app, Limits(web.context, 20, 20), keep_alive_seconds=620)
        config.load()
        protocol, recorder = HttpProtocol(config=config, server_state=ServerState(), app_state={}), Recorder()
        protocol.connection_made(recorder)
        return protocol, recorder

    return connected


async def test_an_answer_of_the_api_is_one_write(web: Web, connect: Connect) -> None:
    protocol, recorder = connect(web.app)
    token = web.token("bob").encode()
    for answers in (1, 2):
        protocol.data_received(b"GET /api/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % token)
        await eventually(lambda: bool(protocol.cycle.response_complete))
        assert len(recorder.written) == answers
        assert recorder.written[-1].startswith(b"HTTP/1.1 200 OK\r\n")
        assert recorder.written[-1].endswith(b'\r\n\r\n{"messages":[]}')
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    ("request_line", "field", "body"),
    [
        (b"GET / HTTP/1.1", b"", b"text"),
        (b"HEAD / HTTP/1.1", b"", b""),
        (b"GET / HTTP/1.0", b"connection: close\r\n", b"text"),
    ],
)
async def test_an_answer_is_written_as_its_request_asks(
    connect: Connect, request_line: bytes, field: bytes, body: bytes
) -> None:
    protocol, recorder = connect(Response("text", 200, {"x-a": "b"}))
    protocol.data_received(request_line + b"\r\nhost: x\r\n\r\n")
    await eventually(lambda: bool(recorder.written))
    assert recorder.written == [b"HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 4\r\n" + field + b"\r\n" + body]
    assert (protocol._lingering is not None) == bool(field)
    protocol.connection_lost(None)


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
async def test_no_field_of_an_answer_ends_a_line(connect: Connect, value: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", value)]})
        await send({"type": "http.response.body", "body": b""})

    protocol, recorder = connect(app)
    protocol.data_received(GET)
    await eventually(lambda: bool(recorder.written))
    assert recorder.written[0].startswith(b"HTTP/1.1 500 ")
    assert b"x-a" not in recorder.written[0]
    protocol.connection_lost(None)


async def test_an_answer_in_pieces_is_a_fault_of_ours(connect: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        with pytest.raises(RuntimeError, match="one piece"):
            await send({"type": "http.response.body", "body": b"whole", "more_body": True})
        for body in (b"", b"longer"):
            with pytest.raises(RuntimeError, match="another length"):
                await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.body", "body": b"whole"})
        with pytest.raises(RuntimeError, match=r"no http\.response\.body here"):
            await send({"type": "http.response.body", "body": b"more"})

    protocol, recorder = connect(app)
    protocol.data_received(GET)
    await eventually(lambda: bool(recorder.written))
    assert recorder.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"]
    protocol.connection_lost(None)
