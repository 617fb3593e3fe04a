"""Saves messages to a directory so that, whatever is interrupted, each is complete and reported once."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from router.client.messages import Received
from router.errors import RouterError

_SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class UnsafeId(RouterError):
    """The id cannot be a file name; the router that gave it is not to be trusted."""


class Directory:
    """``<id>.json`` for each message: the canonical envelope."""

    def __init__(self, path: Path, saved: Callable[[Received, Path], None]) -> None:
        """``saved`` is called with each message the first time that it is saved."""
        self._path = path
        self._saved = saved
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from error

    async def save(self, batch: Sequence[Received]) -> None:
        """Write the messages that are not there yet; they are on disk when this returns."""
        new = await asyncio.to_thread(self._write, batch)
        for received, path in new:
            self._saved(received, path)

    def _write(self, batch: Sequence[Received]) -> list[tuple[Received, Path]]:
        new = []
        for received in batch:
            if not _SAFE_ID.fullmatch(received.id):
                raise UnsafeId("the router sent an id that cannot be a file name")
            path = self._path / f"{received.id}.json"
            if not path.exists():
                _write_atomically(path, bytes(received.envelope))
                new.append((received, path))
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return new


def _write_atomically(path: Path, content: bytes) -> None:
    # A unique name: another process may be saving the same message to the same directory.
    draft = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    with draft.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
