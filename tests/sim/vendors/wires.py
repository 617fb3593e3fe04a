"""What lies between a client and a server: how long a call takes, whether it arrives, and whether its answer does."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any

from msgspec import Struct


class Fate(Struct, frozen=True):
    """What becomes of one call."""

    request: float | None = 0.0
    """Seconds until the server has it; ``None``: it never gets it."""
    answer: float | None = 0.0
    """Seconds until the caller hears of it afterwards; ``None``: it never does."""
    fails: bool = False
    """What it hears then is that the call failed."""
    part: float = 1.0
    """So much of a batch is done."""


FINE = Fate()


class Wire:
    """Between one client and one server. On this one nothing goes wrong and all goes at once."""

    alive = True
    """Whether the client's process lives."""

    def fate(self, call: str) -> Fate:
        """What becomes of the next call of that name."""
        del call
        return FINE

    def away(self) -> bool:
        """Whether nothing comes through now, in either direction."""
        return False

    def opening(self) -> Fate:
        """What becomes of a connection that is being opened."""
        return FINE

    def tears(self) -> bool:
        """Whether a connection breaks that the server sends something on now."""
        return False


class Place:
    """Where a server runs: its time, its chances, and the context of all that it does."""

    def __init__(self, chance: random.Random, context: contextvars.Context | None = None) -> None:
        self.chance = chance
        self.context = context or contextvars.copy_context()

    def now(self) -> float:
        """Seconds, by the server's own clock, which no node's clock has to do with."""
        return asyncio.get_running_loop().time()

    def later(self, seconds: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Do something at the server after ``seconds``."""
        return asyncio.get_running_loop().call_later(seconds, callback, *args, context=self.context)
