"""Loads the statements in ``sql/*.sql``, each of which follows a line ``-- name: what it does``.

Names with ``$`` stand for states of ``router.lifecycle`` (``$HOT``), sets of them (``$GONE``, ``$UNDER_WAY``), the
states that an event changes (``$BEFORE_MOVED``), and the states after it (``$AFTER_MOVED``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from string import Template

from router.lifecycle import GONE, IN_COLD, IN_HOT, STORED, UNDER_WAY, Event, State, changes

_HEADING = re.compile(r"^-- (\w+): .*$", re.MULTILINE)


def load(name: str) -> dict[str, str]:
    """The statements of ``sql/<name>.sql`` by their names."""
    text = files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8")
    parts = _HEADING.split(Template(text).substitute(_NUMBERS))
    return {title: body.strip().rstrip(";") for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _numbers() -> Iterator[tuple[str, str]]:
    yield from ((state.name, str(state.value)) for state in STORED)
    sets = {"GONE": GONE, "IN_COLD": IN_COLD, "IN_HOT": IN_HOT, "UNDER_WAY": UNDER_WAY}
    yield from ((name, _list(states)) for name, states in sets.items())
    for event in Event:
        if changed := changes(event):
            yield f"BEFORE_{event.name}", _list(changed)
            yield f"AFTER_{event.name}", _case(changed)


def _list(states: Iterable[State]) -> str:
    return f"({', '.join(str(state.value) for state in sorted(states))})"


def _case(changed: dict[State, State]) -> str:
    if len(set(changed.values())) == 1:
        return str(next(iter(changed.values())).value)
    whens = (f"WHEN {before.value} THEN {after.value}" for before, after in sorted(changed.items()))
    return f"CASE state {' '.join(whens)} ELSE state END"


_NUMBERS = dict(_numbers())
