"""A transport that closes in stages sends what was written before, and nothing after."""

from __future__ import annotations

import asyncio

import pytest

from router.web.transport.lingering_close import ReadPace
from router.web.transport.staged_transport import StagedTransport
from tests.web.recorder import Recorder

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def staged(anyio_backend: str, recorder: Recorder) -> StagedTransport:
    return StagedTransport(recorder, asyncio.get_running_loop(), 20, ReadPace())


async def test_what_is_written_goes_out_at_once(recorder: Recorder, staged: StagedTransport) -> None:
    """``100 Continue``, say: the body of the request comes only after it."""
    staged.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    staged.write(b"more")
    assert recorder.written == [b"HTTP/1.1 100 Continue\r\n\r\n", b"more"]


async def test_closing_lingers_and_aborting_does_not(recorder: Recorder, staged: StagedTransport) -> None:
    staged.write(b"last words")
    staged.close()
    assert recorder.written == [b"last words"]
    assert recorder.half_closed
    assert not recorder.closed
    assert staged.is_closing()
    assert staged.lingering is not None
    staged.lingering.over()
    aborted = Recorder()
    StagedTransport(aborted, asyncio.get_running_loop(), 20, ReadPace()).abort()
    assert aborted.closed


async def test_a_socket_has_a_handshake_for_closing(recorder: Recorder, staged: StagedTransport) -> None:
    staged.upgrade()
    staged.close()
    assert recorder.closed
    assert staged.lingering is None


async def test_nothing_is_written_to_a_transport_that_is_closing(recorder: Recorder, staged: StagedTransport) -> None:
    recorder.closed = True
    staged.write(b"late")
    recorder.closed = False
    staged.close()
    staged.write(b"later")
    assert recorder.written == []
    assert staged.lingering is not None
    staged.lingering.over()
