"""Whose turn it is to write, of the processes that share a database file.

SQLite itself only says that another process writes; a process that wants to write then has to ask again and again. Here
the system wakes the next one. There are two locks, and the system releases both with the process, however that ends:

* The process that writes holds ``writer.lock``.
* The process that is next waits for it, and holds ``next.lock`` meanwhile. All others wait for that one, the process
  that has just written too: it cannot be first again while somebody waits.

SQLite's own lock still decides. So a process that knows nothing of turns, such as an operator's ``sqlite3``, only makes
others wait as it always did.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from router.data_dir import unusable

WRITER, NEXT = "writer.lock", "next.lock"


class Turns(Protocol):
    """The turns of one process, on one file. At most one call is under way."""

    def take(self) -> bool:
        """Take the turn unless another process has it or is next. If not, ``wait`` has to follow."""
        ...

    def wait(self) -> None:
        """Return when this process has the turn."""
        ...

    def leave(self) -> None:
        """Let the next one write; nothing happens if this process does not have the turn."""
        ...

    def close(self) -> None: ...


class FileTurns:
    """``Turns`` by locks on two files beside the database ``path``."""

    def __init__(self, path: Path) -> None:
        """Raises ``DataDirError`` if the files cannot be opened."""
        try:
            self._next = _open(path.with_name(NEXT))
            self._writer = _open(path.with_name(WRITER))
        except OSError as error:
            raise unusable(path.parent, error) from error
        self._is_next = False
        self._writes = False

    def take(self) -> bool:
        if self._writes:
            return True
        if not _try(self._next):
            return False
        self._is_next = True
        if not _try(self._writer):
            return False
        self._begin()
        return True

    def wait(self) -> None:
        if self._writes:
            return
        if not self._is_next:
            fcntl.flock(self._next, fcntl.LOCK_EX)
            self._is_next = True
        fcntl.flock(self._writer, fcntl.LOCK_EX)
        self._begin()

    def _begin(self) -> None:
        self._writes, self._is_next = True, False
        fcntl.flock(self._next, fcntl.LOCK_UN)

    def leave(self) -> None:
        if self._writes:
            self._writes = False
            fcntl.flock(self._writer, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._next)
        os.close(self._writer)


class NoTurns:
    """``Turns`` where one process alone has the database, as in a simulation."""

    def take(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def leave(self) -> None:
        return

    def close(self) -> None:
        return


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
