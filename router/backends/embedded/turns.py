"""Whose turn it is to write, of the processes that share a database file.

SQLite itself only says that another process writes; a process that wants to write then has to ask again and again. Here
the system wakes it. There are two locks, and the system releases both with the process, however that ends:

* The process that writes holds ``writer.lock``. Others wait until it is free, and then all may take it: to hand it to
  one that is still being woken would keep it from those that run.
* A process that has not had its turn for too long holds ``next.lock`` while it waits. Then no other takes a turn, also
  not the one that has just written.

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
        """Take the turn unless another process has it or is next; returns at once whether this process has it."""
        ...

    def wait_until_free(self) -> None:
        """Return when the turn may be taken."""
        ...

    def wait(self) -> None:
        """Return when this process has the turn: it is next, before all that have not waited so far."""
        ...

    def leave(self) -> None:
        """Let others write; nothing happens if this process does not have the turn."""
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
        self._writes = False

    def take(self) -> bool:
        if not self._writes and _try(self._next):
            self._writes = _try(self._writer)
            _release(self._next)
        return self._writes

    def wait_until_free(self) -> None:
        if not self._writes:
            fcntl.flock(self._writer, fcntl.LOCK_EX)
            _release(self._writer)

    def wait(self) -> None:
        if not self._writes:
            self.be_next()
            fcntl.flock(self._writer, fcntl.LOCK_EX)
            self._writes = True
            _release(self._next)

    def be_next(self) -> None:
        """The first part of ``wait``."""
        fcntl.flock(self._next, fcntl.LOCK_EX)

    def leave(self) -> None:
        if self._writes:
            self._writes = False
            _release(self._writer)

    def close(self) -> None:
        os.close(self._next)
        os.close(self._writer)


class Lead:
    """The lock of the one process that counts for all on a data directory; it is this process's until that ends."""

    def __init__(self, path: Path) -> None:
        """``path``: the file of the lock, which ``take`` makes."""
        self._path = path
        self._file: int | None = None

    def take(self) -> bool:
        """Take the lock unless another process has it; returns whether this process has it. Raises ``DataDirError``."""
        if self._file is None:
            try:
                self._file = _open(self._path)
            except OSError as error:
                raise unusable(self._path.parent, error) from error
        return _try(self._file)

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)


class NoTurns:
    """``Turns`` where one process alone has the database, as in a simulation."""

    def take(self) -> bool:
        return True

    def wait_until_free(self) -> None:
        return

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


def _release(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_UN)
