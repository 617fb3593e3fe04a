"""The data directory of the embedded parts: made where it is missing, and why it cannot be."""

from __future__ import annotations

import errno
from pathlib import Path

from router.errors import DataDirError

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def make_data_dir(path: Path) -> None:
    """Make ``path`` (0700) where it is missing; raises ``DataDirError``."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise unusable(path, error) from error


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
