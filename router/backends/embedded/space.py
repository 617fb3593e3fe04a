"""Room on the volume of the data directory: while there is little, nothing new is accepted, and all else goes on.

    enough --(less than the mark)--> short --(an eighth more than the mark)--> enough

What was accepted still has to be routed, fetched, acknowledged and moved, and deleting too writes to the log first. The
mark keeps room for that. If something else fills the volume, a file that is kept there for this case is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from router import logs
from router.clock import Clock
from router.errors import NoRoom, Unavailable

LOG = logs.logger(__name__)
FILE_NAME = "reserve"
LOOK_SECONDS = 0.1
"""When a message is accepted, the last look at the volume is at most this old."""
LARGEST_SHARE = 4
"""The mark is at most the volume divided by this."""
FILE_SHARE = 8
"""The file has the size of the mark divided by this; the shortage ends once this share more than the mark is free."""


class Volume(Struct, frozen=True):
    """A file system, in bytes."""

    total: int
    free: int
    """For this user."""


def volume(directory: Path) -> Volume:
    """Raises ``Unavailable`` where it does not tell."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise Unavailable(f"the volume of {directory} does not report its free space: {error.strerror}") from error
    return Volume(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def mark_of(total: int, reserve_bytes: int) -> int:
    """Below how many free bytes a volume of ``total`` is short of room."""
    return min(reserve_bytes, total // LARGEST_SHARE)


class Space:
    """Whether there is room for new mail. Its state: what the last look found."""

    def __init__(
        self,
        data_dir: Path,
        reserve_bytes: int,
        clock: Clock,
        *,
        within: Callable[[], int] = lambda: 0,
        look: Callable[[Path], Volume] = volume,
    ) -> None:
        """``within``: how many bytes of the database file are free, and are used before it grows."""
        self._data_dir = data_dir
        self._file = data_dir / FILE_NAME
        self._reserve_bytes = reserve_bytes
        self._clock = clock
        self._within = within
        self._volume = look
        self._looked_at = float("-inf")
        self._found = Volume(0, 0)
        self.short = False

    @property
    def free(self) -> int:
        """What the last look found on the volume."""
        return self._found.free

    @property
    def full(self) -> bool:
        """Whether the last look found less than the reserve has."""
        return self.short and self._found.free < mark_of(self._found.total, self._reserve_bytes) // FILE_SHARE

    def check(self) -> None:
        """Raise ``NoRoom`` while nothing new is accepted."""
        if self._clock.monotonic() - self._looked_at >= LOOK_SECONDS:
            self.look()
        if self.short:
            raise NoRoom(
                "the volume of the data directory is nearly full: no messages are accepted until space is free"
            )

    def look(self) -> bool:
        """Look anew, and tell where it begins or ends; returns whether room is short."""
        self._looked_at = self._clock.monotonic()
        self._found = self._volume(self._data_dir)
        mark = mark_of(self._found.total, self._reserve_bytes)
        wanted = mark + mark // FILE_SHARE if self.short else mark
        short = self._room() < wanted
        if short != self.short:
            self._tell(short, wanted)
        self.short = short
        return short

    def _room(self) -> int:
        """Free pages of the file hold mail too, but not the log: a quarter must be free outside of it."""
        free = self._found.free
        return min(free + self._within(), 4 * free)

    def _tell(self, short: bool, wanted: int) -> None:
        values = {"data_dir": str(self._data_dir), "free_bytes": self._found.free, "wanted_bytes": wanted}
        if short:
            told = "the volume of the data directory is nearly full: sends are refused until space is free"
            LOG.error(told, **values)
        else:
            LOG.warning("the volume of the data directory has free space again: sends are accepted", **values)

    # The file: made while there is room to spare, and removed for good when a write finds the volume full.

    def keep_file(self) -> None:
        """Make the file where it is missing and there is room for it. Raises ``OSError``."""
        mark = mark_of(self._found.total, self._reserve_bytes)
        size = mark // FILE_SHARE
        if self.short or not size or self._room() < mark + 2 * size or self._size() >= size:
            return
        with self._file.open("wb") as file:
            self._file.chmod(0o600)
            _allocate(file.fileno(), size)

    def give_up_file(self) -> bool:
        """A write may have found no room: remove the file, where the volume has less than it holds; returns whether
        that made room."""
        size = self._size()
        if not size or self._volume(self._data_dir).free >= size:
            return False
        with suppress(FileNotFoundError):  # another process was faster: there is room now
            self._file.unlink()
        LOG.error("the volume of the data directory is full: its reserve is in use", reserve_bytes=size)
        return True

    def _size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:  # the directory too may be missing, or none
            return 0


def _allocate(descriptor: int, size: int) -> None:
    """Have the file system set ``size`` bytes aside, and not only note the length."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for _ in range(0, size, 1 << 20):
        os.write(descriptor, bytes(min(size, 1 << 20)))
