"""The library that ``LD_PRELOAD`` puts under a router, where this machine can build it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("journal.c")


def compiler() -> str | None:
    """A C compiler; ``None`` where there is none."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """The library, built in ``folder``."""
    command = compiler()
    assert command is not None, "there is no C compiler: install one (Debian: apt-get install gcc libc6-dev)"
    library = folder / "journal.so"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([command, *options, "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library
