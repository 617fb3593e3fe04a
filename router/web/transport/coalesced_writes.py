"""A transport that sends what is written at once, together, and closes in stages."""

from __future__ import annotations

import asyncio
from typing import Any

from router.web.transport.lingering_close import LingeringClose, ReadPace


class CoalescingTransport(asyncio.Transport):
    """Holds what is written until ``release`` or the event loop's next turn, whichever is first.

    uvicorn writes head and body of an answer one after the other, and uvloop sends each at once: two system calls and
    two packets for an answer of a hundred bytes. ``lingering`` is set once it closes in stages.
    """

    __slots__ = ("_at_once", "_held", "_loop", "_pace", "_seconds", "lingering", "transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, client_seconds: float, pace: ReadPace
    ) -> None:
        """``pace`` is shared by all connections that close in stages."""
        super().__init__()
        self.transport = transport
        self.lingering: LingeringClose | None = None
        self._loop = loop
        self._seconds = client_seconds
        self._pace = pace
        self._held: list[bytes] = []
        self._at_once = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.lingering is not None or self.transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        # While it closes in stages, bytes that are not read would hide that the client has closed.
        if self.lingering is None:
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
        """It carries a WebSocket now: each write is a frame, and closing has a handshake of its own."""
        self.release()
        self._at_once = True

    def release(self) -> None:
        """Send what is held."""
        if self._held:
            data, self._held = b"".join(self._held), []
            if not self.is_closing():
                self.transport.write(data)

    def close(self) -> None:
        """Send what is held, then close; in stages unless it carries a WebSocket."""
        if self._at_once:
            self.transport.close()
        else:
            self.close_in_stages()

    def close_in_stages(self) -> None:
        """Send what is held, then close when the client has it."""
        self.release()
        if not self.is_closing():
            self.lingering = LingeringClose(self.transport, self._loop, self._seconds, self._pace)

    def end(self) -> None:
        """Send what is held, then close, whatever the client still sends."""
        self.release()
        self.transport.close()

    def abort(self) -> None:
        """Close at once; what is held is dropped."""
        self._held.clear()
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet, including those held."""
        return self.transport.get_write_buffer_size() + sum(map(len, self._held))
