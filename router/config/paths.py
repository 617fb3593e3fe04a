"""Paths that begin at a home directory, on machines where there is one, and where there is none."""

from __future__ import annotations

from pathlib import Path


def expanded(path: Path) -> Path:
    """``path`` with its ``~`` replaced by that home directory, or ``path`` itself where there is no such directory.

    Supervisors, containers and ``env -i`` start processes without ``HOME`` under a uid without a passwd entry.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def is_homeless(path: Path) -> bool:
    """Whether ``path``, which was ``expanded``, still begins at a home directory: there is no such directory."""
    return str(path).startswith("~")
