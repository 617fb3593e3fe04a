"""The limits that all connections of one port share, and how a connection comes by them."""

from __future__ import annotations

import sys

import uvicorn
from msgspec import Struct, field

from router.web.context import EdgeContext
from router.web.transport.lingering_close import ReadPace
from router.web.transport.memory_budget import MemoryBudget

HELD_BYTES = 128 * 1024 * 1024
"""Bytes that all clients together may hold in this process: answers that they do not read, and bodies of requests that
are not answered."""


class Limits(Struct):
    """The limits that are set, and the counters that all connections share."""

    context: EdgeContext
    """Counts and logs each refused request and each client cut off, with the reason."""
    ping_seconds: float
    client_seconds: float
    """For how long a client may pause in what it sends, or in reading what it is sent."""
    longest_body: int = sys.maxsize
    """Every route refuses a body whose Content-Length is more than this, so none of it is kept."""
    memory: MemoryBudget = field(default_factory=lambda: MemoryBudget(HELD_BYTES))
    discarding: ReadPace = field(default_factory=ReadPace)


class LimitedConfig(uvicorn.Config):
    """A configuration of uvicorn that carries ``limits`` to each connection."""

    limits: Limits
