"""The parser of HTTP requests, which goes on where the library's would stop."""

from __future__ import annotations

from collections.abc import Callable

import httptools


class RequestParser:
    """Reads a request whose ``Upgrade`` is ignored as if it had none (RFC 9110, section 7.8).

    The library ends such a request at its headers, and would take its body for the next request.
    """

    def __init__(self, without_upgrade: Callable[[], bytes | None], protocol: object) -> None:
        """``without_upgrade`` is called after the head of a request with an ``Upgrade``. It returns the head to read
        instead, or ``None`` if the upgrade is granted."""
        self._without_upgrade = without_upgrade
        self._protocol = protocol
        self._begin()

    def feed_data(self, data: bytes) -> None:
        """Raises what the library raises."""
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as asked:
                head = self._without_upgrade()
                if head is None:
                    raise
                data = head + data[asked.args[0] :]
                # The previous parser reads no more if the request said that it is the last.
                self._begin()
            else:
                return

    def should_upgrade(self) -> bool:
        return self._parser.should_upgrade()

    def should_keep_alive(self) -> bool:
        return self._parser.should_keep_alive()

    def get_http_version(self) -> str:
        return self._parser.get_http_version()

    def get_method(self) -> bytes:
        return self._parser.get_method()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self._protocol)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
