"""A transport that sends what is written at once, together."""

from __future__ import annotations

import asyncio
from typing import Any


class Joined(asyncio.Transport):
    """Holds what is written until it is released, or until the event loop's next turn, whichever is first.

    uvicorn writes head and body of an answer one after the other and uvloop sends each as it comes: two system calls
    and two packets for an answer of a hundred bytes.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def write(self, data: Any) -> None:
        if not self._held:
            self._loop.call_soon(self.release)
        self._held.append(data)

    def release(self) -> None:
        """Send what is held."""
        if self._held:
            data, self._held = b"".join(self._held), []
            if not self.is_closing():
                self.transport.write(data)

    def close(self) -> None:
        """Send what is held, then close."""
        self.release()
        self.transport.close()

    def abort(self) -> None:
        """Close at once; what is held is dropped."""
        self._held.clear()
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet, those held included."""
        return self.transport.get_write_buffer_size() + sum(map(len, self._held))
