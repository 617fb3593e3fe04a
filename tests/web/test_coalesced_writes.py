"""An answer is one write: head and body go out together, and nothing is kept back for it."""

from __future__ import annotations

import asyncio

import pytest
from uvicorn.server import ServerState

from router.web.transport.coalesced_writes import CoalescingTransport
from router.web.transport.config import TransportConfig
from router.web.transport.http import HttpProtocol
from router.web.transport.limits import Limits
from router.web.transport.lingering_close import ReadPace
from tests.support.edge import eventually
from tests.web.conftest import Web

pytestmark = pytest.mark.anyio


class Recorder(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.half_closed = False

    def write_eof(self) -> None:
        self.half_closed = True

    def resume_reading(self) -> None:
        pass

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 5


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def writes(anyio_backend: str, recorder: Recorder) -> CoalescingTransport:
    return CoalescingTransport(recorder, asyncio.get_running_loop(), 20, ReadPace())


async def test_what_is_written_before_the_release_is_one_write(recorder: Recorder, writes: CoalescingTransport) -> None:
    writes.write(b"head")
    writes.write(b"body")
    assert recorder.written == []
    writes.release()
    assert recorder.written == [b"headbody"]


async def test_what_nobody_releases_goes_out_in_the_next_turn(recorder: Recorder, writes: CoalescingTransport) -> None:
    """``100 Continue``, say: the body of the request comes only after it."""
    writes.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await asyncio.sleep(0)
    assert recorder.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    writes.write(b"more")
    await asyncio.sleep(0)
    assert recorder.written[1:] == [b"more"]


async def test_closing_sends_what_is_held_and_aborting_drops_it(
    recorder: Recorder, writes: CoalescingTransport
) -> None:
    writes.write(b"last words")
    assert writes.get_write_buffer_size() == 5 + len(b"last words")
    writes.close()
    assert recorder.written == [b"last words"]
    assert recorder.half_closed
    assert writes.is_closing()
    assert writes.lingering is not None
    writes.lingering.over()
    aborted = Recorder()
    other = CoalescingTransport(aborted, asyncio.get_running_loop(), 20, ReadPace())
    other.write(b"never")
    other.abort()
    await asyncio.sleep(0)
    assert aborted.written == []


async def test_nothing_is_written_to_a_transport_that_closed_meanwhile(
    recorder: Recorder, writes: CoalescingTransport
) -> None:
    writes.write(b"late")
    recorder.closed = True
    await asyncio.sleep(0)
    assert recorder.written == []


async def test_an_answer_of_the_api_is_one_write(web: Web, recorder: Recorder) -> None:
    config = TransportConfig(web.app, Limits(web.context, 20, 20), keep_alive_seconds=620)
    config.load()
    protocol = HttpProtocol(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(recorder)
    token = web.token("bob").encode()
    for answers in (1, 2):
        protocol.data_received(b"GET /api/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n" % token)
        await eventually(lambda: bool(protocol.cycle.response_complete))
        assert len(recorder.written) == answers
        assert recorder.written[-1].startswith(b"HTTP/1.1 200 OK\r\n")
        assert recorder.written[-1].endswith(b'\r\n\r\n{"messages":[]}')
    protocol.connection_lost(None)
