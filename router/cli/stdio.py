"""The standard streams, made fit for use whatever the caller has left of them.

Where one is closed, the next socket or database would get its descriptor, and with it what is printed.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

from router.errors import RouterError

_ON_DEV_NULL = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)
"""How stdin, stdout and stderr are opened where they are closed: to use the first two fails, as it should."""

UNDECODABLE = "\udcff"
"""What Python makes of the byte 0xff in the name of a file where names are UTF-8."""


class OutputFailed(RouterError):
    """Standard output cannot be written; the message says why.

    No ``OSError``: nobody who tries again after one is meant.
    """


class ReaderGone(OutputFailed):
    """The reader of standard output has gone."""


class _Input(io.FileIO):
    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            error.filename = "standard input"
            raise


class _Output(io.FileIO):
    """Says once that it cannot be written, and then takes what is left in buffers."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            kind = ReaderGone if isinstance(error, BrokenPipeError) else OutputFailed
            raise kind(f"cannot write to standard output: {error.strerror}") from error


class _Errors(io.FileIO):
    """What cannot be said here is not said, and changes nothing of what a command does."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare() -> None:
    """To be called before anything is opened."""
    for descriptor, mode in enumerate(_ON_DEV_NULL):
        _occupy(descriptor, mode)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(0, closefd=False)))
    sys.stdout = _writer(sys.stdout, _Output(1, "w", closefd=False))
    sys.stderr = _writer(sys.stderr, _Errors(2, "w", closefd=False), line_buffering=True)


def _occupy(descriptor: int, mode: int) -> None:
    """Where it is closed, open it: the lowest free descriptor is the one that is given."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, mode)


def _writer(given: TextIO | None, raw: io.FileIO, *, line_buffering: bool = False) -> TextIO:
    """What writes as ``given`` does, which is ``None`` where the stream was closed."""
    if not isinstance(given, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=line_buffering)
    given.flush()
    # Where Python was asked not to buffer: all that is printed here are lines.
    at_each_line = line_buffering or given.line_buffering or given.write_through
    errors = _errors(given.encoding, given.errors)
    return io.TextIOWrapper(io.BufferedWriter(raw), given.encoding, errors, line_buffering=at_each_line)


def _errors(encoding: str, errors: str | None) -> str | None:
    """``errors``, or ``backslashreplace`` where it would let a letter or a byte of a file's name fail."""
    try:
        f"\N{SNOWMAN}{UNDECODABLE}".encode(encoding, errors or "strict")
    except UnicodeError:
        return "backslashreplace"
    return errors
