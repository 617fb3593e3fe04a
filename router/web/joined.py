"""A transport that sends what is written at once, together, and closes in stages."""

from __future__ import annotations

import asyncio
from typing import Any

DISCARDED_BYTES = 16 * 1024 * 1024
"""So much of what comes after the last answer is thrown away unread before the connection is closed all the same."""


class Joined(asyncio.Transport):
    """Holds what is written until it is released, or until the event loop's next turn, whichever is first.

    uvicorn writes head and body of an answer one after the other and uvloop sends each as it comes: two system calls
    and two packets for an answer of a hundred bytes. ``last_stage`` is there from the moment that it is closed.
    """

    __slots__ = ("_at_once", "_held", "_loop", "_seconds", "last_stage", "transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, client_seconds: float) -> None:
        super().__init__()
        self.transport = transport
        self.last_stage: LastStage | None = None
        self._loop = loop
        self._seconds = client_seconds
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
            self.last_stage = LastStage(self.transport, self._loop, self._seconds)

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
    """

    __slots__ = ("_left", "_loop", "_seconds", "_timer", "_transport", "_unsent")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds
        self._left = DISCARDED_BYTES
        self._unsent = transport.get_write_buffer_size()
        transport.write_eof()
        transport.resume_reading()
        self._timer = loop.call_later(seconds, self._look)

    def discard(self, data: bytes) -> None:
        """Throw ``data`` away; where it is too much, close."""
        self._left -= len(data)
        if self._left < 0:
            self._transport.close()

    def over(self) -> None:
        """The connection has ended."""
        self._timer.cancel()

    def _look(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if not unsent:
            self._transport.close()
        elif unsent < self._unsent:
            self._unsent = unsent
            self._timer = self._loop.call_later(self._seconds, self._look)
        else:
            self._transport.abort()
