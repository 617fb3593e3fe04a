"""The part of ``docs/lifecycle.md`` that ``router.lifecycle`` says: a diagram and a table."""

from __future__ import annotations

from collections.abc import Iterator

from router.lifecycle import REDELIVERY_OWES, TRANSITIONS, Event, State, Step, step

_START = "[*]"


def lifecycle() -> str:
    """A Mermaid diagram of what changes a record, and a table of every state and event."""
    return "\n".join(["```mermaid", *_diagram(), "```", "", *_table(), ""])


def _diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    for before, steps in TRANSITIONS.items():
        if before is State.DAMAGED:
            continue
        edges: dict[State, list[str]] = {}
        for event, (after, owes_deletion) in steps.items():
            if after is not before:
                edges.setdefault(after, []).append(f"{event}{' (delete copy)' if owes_deletion else ''}")
        for after, events in edges.items():
            yield f"    {_node(before)} --> {_node(after)}: {', '.join(events)}"


def _node(state: State) -> str:
    return _START if state is State.UNKNOWN else state.name


def _table() -> Iterator[str]:
    states = list(TRANSITIONS)
    yield "| event | " + " | ".join(f"`{state.name}`" for state in states) + " |"
    yield "|---|" + "---|" * len(states)
    for event in Event:
        yield f"| {event} | " + " | ".join(_cell(state, step(state, event)) for state in states) + " |"
    owed = [REDELIVERY_OWES.get(state) for state in states]
    yield "| *a redelivery still owes* | " + " | ".join(f"`{outcome}`" if outcome else "" for outcome in owed) + " |"


def _cell(state: State, found: Step) -> str:
    after = "" if found.after is state else f"`{found.after.name}`"
    return ", ".join(filter(None, [after, "delete copy" if found.owes_deletion else ""]))
