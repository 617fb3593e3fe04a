"""What fails, when and for how long: all of it from the seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from msgspec import Struct

QUIET_SECONDS = 2.0
"""At first nothing fails."""
RESHAPE_SECONDS = 75.0
"""A topology with several shapes keeps each about so long."""
SHORT, LONG = (0.2, 3.0), (0.5, 9.0)
"""How long something is down, and how long it stands still: at times longer than a lease. So long, too, is a copy to
damage looked for."""
SPANS = {
    "kill": SHORT, "stop": SHORT, "pause": LONG, "cut": (0.0, 0.0), "drop": (0.0, 0.0), "hush": LONG, "damage": LONG,
}  # fmt: skip


class Target(Struct, frozen=True):
    """Something that can fail."""

    name: str
    group: str
    """Those that are of one kind are counted together."""
    kinds: tuple[str, ...]
    """``kill`` (-9), ``stop`` (SIGTERM), ``pause`` (SIGSTOP); of connections: ``cut`` (all of them), ``drop`` (some),
    ``hush`` (nothing gets through, and nobody is told); of stored copies: ``damage`` (a bit of one is another)."""


class Shape(Struct, frozen=True):
    """Which nodes are up, and what can fail then."""

    name: str
    nodes: tuple[str, ...]
    targets: tuple[Target, ...]


class Fault(Struct, frozen=True):
    at: float
    """Seconds after the start."""
    kind: str
    target: str
    group: str
    seconds: float
    """How long it lasts, and what is down stays down."""


def make(seed: int, seconds: float, shapes: Sequence[Shape], gap_seconds: float) -> list[Fault]:
    """The faults of a run of ``seconds``, one every ``gap_seconds`` on average, in the order of their time."""
    chance = random.Random(f"{seed} faults")
    faults: list[Fault] = []
    spans = list(_spans(seconds, shapes))
    for index, (shape, begins, ends) in enumerate(spans):
        if index:
            faults.append(Fault(begins, "reshape", shape.name, "topology", 0.0))
        at = begins + QUIET_SECONDS
        for kind, target in _rounds(chance, shape):
            if at >= ends:
                break
            faults.append(Fault(at, kind, target.name, target.group, chance.uniform(*SPANS[kind])))
            at += chance.uniform(0.2, 1.8) * gap_seconds
    return faults


def _spans(seconds: float, shapes: Sequence[Shape]) -> Iterator[tuple[Shape, float, float]]:
    """Each shape in turn, with its beginning and its end."""
    count = 1 if len(shapes) == 1 else max(len(shapes), round(seconds / RESHAPE_SECONDS))
    for index in range(count):
        yield shapes[index % len(shapes)], index * seconds / count, (index + 1) * seconds / count


def _rounds(chance: random.Random, shape: Shape) -> Iterator[tuple[str, Target]]:
    """All that can happen, shuffled, over and over: in a long run everything has happened about as often."""
    everything = [(kind, target) for target in shape.targets for kind in target.kinds]
    while True:
        yield from chance.sample(everything, len(everything))
