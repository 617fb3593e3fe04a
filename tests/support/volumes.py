"""A file system of its own that a test can fill to the last byte."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.backends.embedded import space


@contextmanager
def small_volume(directory: Path, size: int) -> Iterator[Path]:
    """``directory``, as a file system of ``size`` bytes; skips the test where none can be mounted: only root may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "router-test", str(directory)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small volume cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def fill(directory: Path) -> Path:
    """Somebody else takes all that is left of the volume; returns their file."""
    path = directory / "of-somebody-else"
    with path.open("ab") as file, contextlib.suppress(OSError):
        while space.volume(directory).free:
            os.write(file.fileno(), bytes(4096))
    return path
