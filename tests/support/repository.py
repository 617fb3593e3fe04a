"""The files of this repository, also where there is no git: in an unpacked archive."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_IGNORED = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line and not line.startswith("#")]


@cache
def texts() -> dict[Path, str]:
    """Each file of text that is not ignored, by its path from the root."""
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8", errors="replace") for path in sorted(_files(ROOT))}


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name == ".git" or _is_ignored(path):
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _is_ignored(path: Path) -> bool:
    """By the forms that our ``.gitignore`` uses: a name anywhere, or with a slash in front, one in the root."""
    return any(
        fnmatch(path.name, line.strip("/")) and (not line.startswith("/") or path.parent == ROOT) for line in _IGNORED
    )
