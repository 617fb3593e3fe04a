"""The data directory of the embedded parts: made where it is missing, and why it cannot be."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from router.errors import DataDirError

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


KEYS = "keys"
"""The directory of the keys in the data directory: a backup of the mail leaves it out."""
SIGNING_KEY = "token-key.pem"
IDEMPOTENCY_KEY = "idempotency-key"


def make_data_dir(path: Path) -> None:
    """Make ``path`` (0700) where it is missing; raises ``DataDirError``, also where it is another user's."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        claim(path)
    except OSError as error:
        raise unusable(path, error) from error


def key_file(data_dir: Path, name: str) -> Path:
    """Where the key ``name`` is: beside the database if an earlier version has put it there."""
    before = data_dir / name
    there = os.path.exists(before)  # noqa: PTH110 - also where it cannot be looked at, which is told when it is opened
    return before if there else data_dir / KEYS / name


def claim(path: Path) -> None:
    """Raise ``DataDirError`` where ``path``, the data directory or what is in it, is another user's, and shut others
    out of what is this user's: of files and the keys altogether, of the directory as far as they may change it.

    On file systems that know no modes, the system's user owns all, and nothing can be shut.
    """
    problem = foreign(path)
    if problem is not None:
        raise DataDirError(f"{problem}: {chown(path)}, or run as that user, or name another embedded.data_dir")
    found = path.stat()
    own = 0o755 if stat.S_ISDIR(found.st_mode) and path.name != KEYS else 0o700
    if _of_a_group(path):
        own |= 0o070
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 & ~own:
        with suppress(OSError):  # such a file system
            path.chmod(stat.S_IMODE(found.st_mode) & (0o7000 | own))


def foreign(path: Path) -> str | None:
    """Whose ``path`` is, in words, where another user owns it, who then can read and replace what is in it."""
    owner = path.stat().st_uid
    if owner in (os.geteuid(), 0) or _of_a_group(path):
        return None
    return f"{path} belongs to user {owner}, and this process runs as user {os.geteuid()}"


def chown(path: Path) -> str:
    """The command that makes ``path`` this user's."""
    return f"chown -R {os.geteuid()} {path}"


def _of_a_group(path: Path) -> bool:
    """Whether ``path`` is on a volume that is shared with a group of this process on purpose, as Kubernetes does it
    with ``fsGroup``: what is made in its directories is the group's too."""
    directory = path if path.is_dir() else path.parent
    found = directory.stat()
    shared = found.st_mode & (stat.S_ISGID | stat.S_IWGRP) == stat.S_ISGID | stat.S_IWGRP
    return shared and found.st_gid in {os.getegid(), *os.getgroups()}


def first_missing(path: Path) -> Path | None:
    """The outermost of ``path`` and the directories it is in that does not exist; ``None`` where ``path`` does."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    return missing[-1] if missing else None


def unusable(path: Path, error: OSError) -> DataDirError:
    """The error to raise if ``error`` makes the directory ``path`` unusable; it says how to fix that."""
    in_the_way = no_directory(path)
    if in_the_way is not None:
        found, advice = f"{in_the_way} is not a directory", "move that away, or name"
    else:
        found = error.strerror or str(error)
        advice = "make it writable, or name" if error.errno in _NOT_WRITABLE else "name"
    return DataDirError(f"cannot use the data directory {path}: {found}; {advice} another with embedded.data_dir")


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
