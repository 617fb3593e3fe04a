"""A transport that closes in stages."""

from __future__ import annotations

import asyncio
from typing import Any

from router.web.transport.lingering_close import LingeringClose, ReadPace


class StagedTransport(asyncio.Transport):
    """Closes when the client has its answer; ``lingering`` is set once it closes in stages."""

    __slots__ = ("_loop", "_pace", "_seconds", "_upgraded", "lingering", "transport")

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, client_seconds: float, pace: ReadPace
    ) -> None:
        """``pace``: of all connections that close in stages."""
        super().__init__()
        self.transport = transport
        self.lingering: LingeringClose | None = None
        self._loop = loop
        self._seconds = client_seconds
        self._pace = pace
        self._upgraded = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.lingering is not None or self.transport.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        # What is not read while it closes in stages would hide that the client has closed.
        if self.lingering is None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def write(self, data: Any) -> None:
        if not self.is_closing():
            self.transport.write(data)

    def upgrade(self) -> None:
        """It is a WebSocket's now, which has a handshake for closing."""
        self._upgraded = True

    def close(self) -> None:
        """Close; in stages before an upgrade."""
        if self._upgraded:
            self.transport.close()
        else:
            self.close_in_stages()

    def close_in_stages(self) -> None:
        """Close when the client has what was written."""
        if not self.is_closing():
            self.lingering = LingeringClose(self.transport, self._loop, self._seconds, self._pace)

    def end(self) -> None:
        """Close, whatever comes."""
        self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        """Bytes that are not sent yet."""
        return self.transport.get_write_buffer_size()
