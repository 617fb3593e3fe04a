"""A transport that sends what is written at once, together, and closes in stages."""

from __future__ import annotations

import asyncio
from typing import Any

DISCARDED_BYTES = 16 * 1024 * 1024
"""After the last answer, this many bytes are discarded unread before the connection is closed anyway."""
READ_SECONDS = 0.001
"""Of all connections that throw away what comes, one is read once in this time: a read takes a tenth of it."""


class Pace:
    """When who throws away what comes may read again. State: until when those who asked before have their turns."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait(self, now: float) -> float:
        """For how many seconds whoever has just read is to wait for the next turn, which is theirs."""
        self._free_at = max(now, self._free_at) + READ_SECONDS
        return self._free_at - now


class Joined(asyncio.Transport):
    """Holds what is written until it is released, or until the event loop's next turn, whichever is first.

    uvicorn writes head and body of an answer one after the other and uvloop sends each as it comes: two system calls
    and two packets for an answer of a hundred bytes. ``last_stage`` is there from the moment that it is closed.
    """

    __slots__ = ("_at_once", "_held", "_loop", "_pace", "_seconds", "last_stage", "transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, client_seconds: float, pace: Pace
    ) -> None:
        """``pace``: of all connections in their last stage."""
        super().__init__()
        self.transport = transport
        self.last_stage: LastStage | None = None
        self._loop = loop
        self._seconds = client_seconds
        self._pace = pace
        self._held: list[bytes] = []
        self._at_once = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.last_stage is not None or self.transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        # What is not read in the last stage would hide that the client has closed.
        if self.last_stage is None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def write(self, data: Any) -> None:
        if self._at_once and not self.is_closing():
            self.transport.write(data)
            return
        if not self._held:
            self._loop.call_soon(self.release)
        self._held.append(data)

    def upgrade(self) -> None:
        """It is a WebSocket's now: each write is a frame, and there is a handshake for closing."""
        self.release()
        self._at_once = True

    def release(self) -> None:
        """Send what is held."""
        if self._held:
            data, self._held = b"".join(self._held), []
            if not self.is_closing():
                self.transport.write(data)

    def close(self) -> None:
        """Send what is held, then close; in stages before an upgrade."""
        if self._at_once:
            self.transport.close()
        else:
            self.close_in_stages()

    def close_in_stages(self) -> None:
        """Send what is held, then close when the client has it."""
        self.release()
        if not self.is_closing():
            self.last_stage = LastStage(self.transport, self._loop, self._seconds, self._pace)

    def end(self) -> None:
        """Send what is held, then close, whatever comes."""
        self.release()
        self.transport.close()

    def abort(self) -> None:
        """Close at once; what is held is dropped."""
        self._held.clear()
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet, those held included."""
        return self.transport.get_write_buffer_size() + sum(map(len, self._held))


class LastStage:
    """A connection after its last answer: nothing more is sent, and what still comes is read and thrown away.

    RFC 9112, section 9.6: closed with bytes unread, TCP resets the connection, and the reset overtakes the answer.
    A client that has its answer closes, and that is the end. It has ``seconds``, and longer while it takes the answer.
    Each read waits for its turn by ``pace``, so that nobody else waits for many of them.
    """

    __slots__ = ("_left", "_loop", "_pace", "_reading", "_seconds", "_timer", "_transport", "_unsent")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float, pace: Pace
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._pace = pace
        self._reading: asyncio.TimerHandle | None = None
        self._left = DISCARDED_BYTES
        self._unsent = transport.get_write_buffer_size()
        transport.write_eof()
        transport.resume_reading()
        self._timer = loop.call_later(seconds, self._look)

    def discard(self, data: bytes) -> None:
        """Throw ``data`` away, and read on in turn; where it is too much, close."""
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()
        elif self._reading is None:
            self._transport.pause_reading()
            self._reading = self._loop.call_later(self._pace.wait(self._loop.time()), self._read_on)

    def over(self) -> None:
        """The connection has ended."""
        self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def _read_on(self) -> None:
        self._reading = None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _look(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._transport.close()
        elif unsent < self._unsent:
            self._unsent = unsent
            self._timer = self._loop.call_later(self._seconds, self._look)
        else:
            self._transport.abort()
