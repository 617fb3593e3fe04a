"""Where a command looks, said before it looks."""

from __future__ import annotations

import typer

from router.config import Config
from router.config.roles import Role
from router.factory import Factory


def look_at(config: Config, *roles: Role) -> None:
    """Say on stderr where a command that only looks, or only moves, finds what these ``roles`` keep.

    Raises ``DataDirError`` where that is a data directory without a database: "nothing queued" would be no answer.
    """
    factory = Factory(config)
    where: dict[str, list[str]] = {}
    for role in roles:
        factory.backends.keeping(role).check_made()
        place = factory.place(role)
        where.setdefault(f"{place.backend}, {place.address}", []).append(role)
    named = [f"{', '.join(names)}: {place}" for place, names in where.items()]
    typer.echo(f"looking at {next(iter(where)) if len(where) == 1 else '; '.join(named)}", err=True)
