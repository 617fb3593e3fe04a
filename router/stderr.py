"""A standard error that never makes its writer wait, even if nobody reads it.

A terminal after Ctrl-S, ``| less`` and a log driver that hangs read nothing more, and the pipe fills up. A thread waits
for them; lines beyond its buffer are dropped and counted, and a line says so where the output goes on.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

WAITING_BYTES = 1024 * 1024
"""Bytes that may wait, in addition to those that are being written."""
FINISH_SECONDS = 1.0
"""Longest time for which a process that ends waits for the reader."""


class Writer:
    """Writes lines to a descriptor, in order, from one thread. State: the lines that wait, under one lock."""

    def __init__(self, descriptor: int, dropped_line: Callable[[int], str]) -> None:
        """``dropped_line`` makes the line that replaces a number of dropped lines."""
        self._descriptor = descriptor
        self._dropped_line = dropped_line
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        self._missing = 0
        self._busy = False
        self.dropped = 0
        """How many lines were dropped in all."""
        threading.Thread(target=self._run, name="stderr", daemon=True).start()

    def put(self, lines: bytes) -> None:
        """Write whole ``lines``, or drop them; returns at once."""
        with self._changed:
            # Once lines are dropped, drop all until the thread has reported it: later lines must not precede the
            # report.
            if self._missing or self._size + len(lines) > WAITING_BYTES:
                self._drop(lines.count(b"\n"))
                return
            self._waiting.append(lines)
            self._size += len(lines)
            self._changed.notify_all()

    def finish(self, seconds: float = FINISH_SECONDS) -> bool:
        """Wait until all is written, for ``seconds`` at most; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._missing and not self._busy, seconds)

    def _drop(self, count: int) -> None:
        self._missing += count
        self.dropped += count

    def _run(self) -> None:
        while True:
            try:
                for piece in _pieces(self._take()):
                    self._write(piece)
            except OSError:
                # Closed, or its reader has gone: there is nobody to tell.
                continue

    def _take(self) -> list[bytes]:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._missing)
            lines, missing = self._waiting, self._missing
            self._waiting, self._size, self._missing, self._busy = [], 0, 0, True
        if missing:
            lines.append(f"{self._dropped_line(missing)}\n".encode(errors="backslashreplace"))
        return lines

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                # Another process that shares the terminal made the descriptor non-blocking.
                select.select([], [self._descriptor], [])


def _pieces(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Whole lines, as many as a pipe takes at once (pipe(7), ``PIPE_BUF``): what another process writes meanwhile
    does not stand within one. Longer lines are a piece of their own."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece


class Stderr(io.TextIOBase):
    """Takes text like ``sys.stderr`` and hands on whole lines."""

    def __init__(self, given: TextIO, writer: Writer) -> None:
        self._given = given
        self._writer = writer
        self._lock = threading.Lock()
        self._begun = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # it is read only
        return self._given.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # it is read only
        return self._given.errors

    def isatty(self) -> bool:
        return self._given.isatty()

    def fileno(self) -> int:
        return self._given.fileno()

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._lock:
            # Refuse anything but text: some libraries find out this way what a stream takes.
            whole, newline, self._begun = (self._begun + text).rpartition("\n")
            if newline:
                self._writer.put((whole + newline).encode(self.encoding, self.errors or "backslashreplace"))
        return len(text)


def descriptor_of(stream: TextIO) -> int | None:
    """What ``stream`` writes to; ``None`` if that is not a file."""
    with contextlib.suppress(OSError, ValueError):
        return stream.fileno()
    return None
