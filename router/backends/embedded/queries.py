"""Statements live in ``sql/*.sql``: each after a line ``-- name: what it does``."""

from __future__ import annotations

import re
from importlib.resources import files

_HEADING = re.compile(r"^-- (\w+): .*$", re.MULTILINE)


def load(name: str) -> dict[str, str]:
    """The statements of ``sql/<name>.sql`` by their names."""
    parts = _HEADING.split(files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8"))
    return {title: body.strip().rstrip(";") for title, body in zip(parts[1::2], parts[2::2], strict=True)}
