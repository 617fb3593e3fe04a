"""The limits that all connections of one port share, and how a connection comes by them."""

from __future__ import annotations

import sys

import uvicorn
from msgspec import Struct, field

from router.web.context import EdgeContext
from router.web.transport.lingering_close import ReadPace
from router.web.transport.memory_budget import MemoryBudget

HELD_BYTES = 128 * 1024 * 1024
"""What all clients together may make this process keep: answers that they do not take, bodies that are not answered."""


class Limits(Struct):
    """Those that are set, and what is counted for all connections together."""

    context: EdgeContext
    """Is told of each request refused and each client cut off, with the reason."""
    ping_seconds: float
    client_seconds: float
    """For how long a client may send nothing of what it has begun, or take nothing of what it is sent."""
    longest_body: int = sys.maxsize
    """Every route refuses a body that says that it has more bytes, so nothing of it is kept."""
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(HELD_BYTES))
    discarding: ReadPace = field(default_factory=ReadPace)


class LimitedConfig(uvicorn.Config):
    """A configuration of uvicorn that carries ``limits`` to each connection."""

    limits: Limits
