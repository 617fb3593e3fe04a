"""Closing in stages (RFC 9112, section 9.6): the client has its answer before the connection is closed."""

from __future__ import annotations

import asyncio

DISCARDED_BYTES = 16 * 1024 * 1024
"""After the last answer, this many bytes are discarded unread before the connection is closed anyway."""
READ_SECONDS = 0.001
"""Of all connections that discard what comes, one is read in each such interval; a read takes a tenth of it."""


class ReadPace:
    """Says when a connection that discards what comes may read again. State: the end of the last turn given."""

    __slots__ = ("_free_at",)

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait(self, now: float) -> float:
        """How many seconds a connection that has just read waits until its next turn."""
        self._free_at = max(now, self._free_at) + READ_SECONDS
        return self._free_at - now


class LingeringClose:
    """A connection after its last answer: nothing more is sent, and what still arrives is read and discarded.

    RFC 9112, section 9.6: if a connection is closed with bytes unread, TCP resets it, and the reset can overtake the
    answer. So the client closes first, once it has its answer. It has ``seconds`` for that, and longer while it still
    reads the answer. Each read waits for its turn by ``pace``, so that many such connections do not delay others.
    """

    __slots__ = ("_left", "_loop", "_pace", "_reading", "_seconds", "_timer", "_transport", "_unsent")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float, pace: ReadPace
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
        """Discard ``data``, and read on at the next turn; close if it is too much."""
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
