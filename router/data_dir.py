"""Makes and checks the data directory of the embedded parts; an error says why it cannot be used."""

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
"""The directory of the keys within the data directory; backups of the mail leave it out."""
SIGNING_KEY = "token-key.pem"
IDEMPOTENCY_KEY = "idempotency-key"


def make_data_dir(path: Path) -> None:
    """Make ``path`` (0700) if it is missing. Raises ``DataDirError``, also if it belongs to another user."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        claim(path)
    except OSError as error:
        raise unusable(path, error) from error


def key_file(data_dir: Path, name: str) -> Path:
    """The file of the key ``name``: beside the database if an earlier version put it there."""
    before = data_dir / name
    there = os.path.exists(before)  # noqa: PTH110 - never raises; opening the file does
    return before if there else data_dir / KEYS / name


def claim(path: Path) -> None:
    """Check the owner of ``path``, which is the data directory or something in it, and restrict its mode. Others get no
    access to files and to the keys, and may not change the directory. Raises ``DataDirError`` if another user owns
    ``path``.

    A file system without modes cannot restrict them; everything there may belong to the system's user.
    """
    problem = foreign(path)
    if problem is not None:
        raise DataDirError(f"{problem}: {chown(path)}, or run as that user, or name another embedded.data_dir")
    found = path.stat()
    own = 0o755 if stat.S_ISDIR(found.st_mode) and path.name != KEYS else 0o700
    if _of_a_group(path):
        own |= 0o070
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 & ~own:
        with suppress(OSError):  # a file system without modes
            path.chmod(stat.S_IMODE(found.st_mode) & (0o7000 | own))


def foreign(path: Path) -> str | None:
    """What is wrong if another user owns ``path`` and so can read and replace what is in it; else ``None``."""
    owner = path.stat().st_uid
    if owner in (os.geteuid(), 0) or _of_a_group(path):
        return None
    return f"{path} belongs to user {owner}, and this process runs as user {os.geteuid()}"


def chown(path: Path) -> str:
    """The command that makes ``path`` this user's."""
    return f"chown -R {os.geteuid()} {path}"


def _of_a_group(path: Path) -> bool:
    """Whether ``path`` is on a volume that is shared with a group of this process on purpose, as by ``fsGroup`` of
    Kubernetes: what is made in its directories belongs to the group too."""
    directory = path if path.is_dir() else path.parent
    found = directory.stat()
    shared = found.st_mode & (stat.S_ISGID | stat.S_IWGRP) == stat.S_ISGID | stat.S_IWGRP
    return shared and found.st_gid in {os.getegid(), *os.getgroups()}


def first_missing(path: Path) -> Path | None:
    """The outermost of ``path`` and its parents that does not exist; ``None`` if ``path`` exists."""
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
    """The first of ``path`` and its parents that exists and is not a directory, or ``None``."""
    try:
        return next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None)
    except OSError:
        return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock on the file ``path`` (0600, made if it is missing); one process at a time holds it.

    Waits for it. The system releases it with the process. Raises ``OSError``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def in_use(data_dir: Path) -> Iterator[None]:
    """For as long as this process uses what is in ``data_dir``: nobody holds it ``alone``. Raises ``DataDirError``."""
    held = f"{data_dir} is being restored: start again when `router restore` has ended"
    with _opened(data_dir, fcntl.LOCK_SH, held):
        yield


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
    """Keep other processes out of ``data_dir``; raises ``DataDirError`` if one uses it."""
    held = (
        f"a router uses {data_dir}, or a command such as `router inspect-queue --watch`: stop it, or name another "
        "embedded.data_dir"
    )
    with _opened(data_dir, fcntl.LOCK_EX, held):
        yield


@contextmanager
def _opened(data_dir: Path, kind: int, held: str) -> Iterator[None]:
    try:
        claim(data_dir)
        descriptor = os.open(data_dir / "open.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(data_dir, error) from error
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirError(held) from error
        yield
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make new names in ``path`` survive a power failure, if its file system can sync directories."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # CIFS and others do not sync directories
            raise
    finally:
        os.close(descriptor)
