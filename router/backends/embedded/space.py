"""Watches the free space on the volume of the data directory. While there is little, the router refuses new messages.

    enough --(free space falls below the mark)--> short --(it rises to the mark and an eighth)--> enough

Below the mark, accepted messages are still routed, fetched, acknowledged and moved, all of which writes to the log, as
even deletion does. If something else fills the volume, the router deletes a file that it keeps there for this case.
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
"""Longest time between two looks at the volume while messages are accepted."""
LARGEST_SHARE = 4
"""The mark is at most the size of the volume divided by this."""
FILE_SHARE = 8
"""The kept file has the size of the mark divided by this. The shortage ends when this share more than the mark is
free."""


class Volume(Struct, frozen=True):
    """Sizes of a file system, in bytes."""

    total: int
    free: int
    """Free for this user."""


def volume(directory: Path) -> Volume:
    """The volume of ``directory``; raises ``Unavailable`` if the system does not say."""
    try:
        found = os.statvfs(directory)
    except OSError as error:
        raise Unavailable(f"the volume of {directory} does not report its free space: {error.strerror}") from error
    return Volume(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def mark_of(total: int, reserve_bytes: int) -> int:
    """The mark: with fewer free bytes than this, a volume of ``total`` bytes is short of space."""
    return min(reserve_bytes, total // LARGEST_SHARE)


class Space:
    """Knows whether there is space for new messages. Its state: what the last look found."""

    def __init__(
        self,
        data_dir: Path,
        reserve_bytes: int,
        clock: Clock,
        *,
        within: Callable[[], int] = lambda: 0,
        look: Callable[[Path], Volume] = volume,
    ) -> None:
        """``within`` returns the free bytes in the database file, which fills up before the file grows."""
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
        """Free bytes on the volume, by the last look."""
        return self._found.free

    @property
    def full(self) -> bool:
        """Whether the last look found less free space than the kept file takes."""
        return self.short and self._found.free < mark_of(self._found.total, self._reserve_bytes) // FILE_SHARE

    def check(self) -> None:
        """Raise ``NoRoom`` while the volume is short of space."""
        if self._clock.monotonic() - self._looked_at >= LOOK_SECONDS:
            self.look()
        if self.short:
            raise NoRoom(
                "the volume of the data directory is nearly full: no messages are accepted until space is free"
            )

    def look(self) -> bool:
        """Look at the volume, log where a shortage begins or ends, and return whether space is short."""
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
        """Free bytes for new messages. Free pages of the file count too, but the log cannot use them: so a quarter must
        be free outside of the file."""
        free = self._found.free
        return min(free + self._within(), 4 * free)

    def _tell(self, short: bool, wanted: int) -> None:
        values = {"data_dir": str(self._data_dir), "free_bytes": self._found.free, "wanted_bytes": wanted}
        if short:
            told = "the volume of the data directory is nearly full: sends are refused until space is free"
            LOG.error(told, **values)
        else:
            LOG.warning("the volume of the data directory has free space again: sends are accepted", **values)

    # The kept file: made while there is space to spare, and deleted when a write finds the volume full.

    def keep_file(self) -> None:
        """Make the kept file if it is missing and there is space for it. Raises ``OSError``."""
        mark = mark_of(self._found.total, self._reserve_bytes)
        size = mark // FILE_SHARE
        if self.short or not size or self._room() < mark + 2 * size or self._size() >= size:
            return
        with self._file.open("wb") as file:
            self._file.chmod(0o600)
            _allocate(file.fileno(), size)

    def give_up_file(self) -> bool:
        """After a write that may have found no space: delete the kept file if less than its size is free. Returns
        whether there is space now."""
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
    """Let the file system allocate ``size`` bytes, and not only note the length."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for _ in range(0, size, 1 << 20):
        os.write(descriptor, bytes(min(size, 1 << 20)))
