"""The data directory of the embedded parts: made where it is missing, and why it cannot be."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import DataDirError

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def make_data_dir(path: Path) -> None:
    """Make ``path`` (0700) where it is missing; raises ``DataDirError``."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise unusable(path, error) from error


def first_missing(path: Path) -> Path | None:
    """The outermost of ``path`` and the directories it is in that does not exist; ``None`` where ``path`` does."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    return missing[-1] if missing else None


def unusable(path: Path, error: OSError) -> DataDirError:
    """What ``error`` means for whoever wants the directory ``path``, and how to mend it."""
    in_the_way = no_directory(path)
    if in_the_way is not None:
        found, mend = f"{in_the_way} is no directory", "move that away, or name"
    else:
        found = error.strerror or str(error)
        mend = "make it writable, or name" if error.errno in _NOT_WRITABLE else "name"
    return DataDirError(f"cannot use the data directory {path}: {found}; {mend} another with embedded.data_dir")


def no_directory(path: Path) -> Path | None:
    """Which of ``path`` and what it is in is something else than a directory."""
    try:
        return next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None)
    except OSError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on the file ``path`` (0600, made where it is missing), which one process at a time has.

    Waits for it. The system releases it with the process. Raises ``OSError``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make new names in ``path`` outlive a power failure, where its file system can say so for a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS and others do not sync directories
            raise
    finally:
        os.close(descriptor)
