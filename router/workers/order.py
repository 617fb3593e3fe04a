"""What the parent tells a worker that it starts, and how it starts one."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from msgspec import Struct

from router.config import Config, Service

PARENT = "parent"
"""What the log calls the process that starts the workers."""


class Program(Struct, frozen=True):
    """How a worker is started, and what it means how it ends."""

    command: Sequence[str]
    """Ends with the number of the descriptor that is its end of the ``Link``; its ``Order`` is its standard input."""
    misconfigured: int
    """The exit code that says that starting it again does not help."""


class Order(Struct, frozen=True):
    """What a worker is to run. It reads no file and no variable of its own: one that takes the place of another has the
    same configuration, also if the file has changed meanwhile."""

    config: Config
    service: Service
    name: str
    """What the log calls it."""

    def dump(self) -> bytes:
        return pickle.dumps(self)


def load(data: bytes) -> Order:
    """The ``Order`` that ``dump`` made, in the parent of this process."""
    order = pickle.loads(data)  # noqa: S301 - nobody else has the other end of this pipe
    assert isinstance(order, Order)
    return order
