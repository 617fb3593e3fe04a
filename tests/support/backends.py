"""Reaching for one backend: the one that a factory uses, or one by itself."""

from __future__ import annotations

import random
from typing import TypeVar

from router.backends.base import Backend, Tools
from router.clock import Clock
from router.config import Config
from router.config.roles import Place, Role
from router.factory import Factory
from router.metrics import Metrics
from router.timekeeping import Timekeeper

B = TypeVar("B", bound=Backend)


async def opened(factory: Factory, kind: type[B]) -> B:
    """The backend of this class that ``factory`` uses, open."""
    (backend,) = [backend for backend in factory.backends.used() if isinstance(backend, kind)]
    return await factory.open(backend)


def tools(clock: Clock, metrics: Metrics | None = None) -> Tools:
    """For a backend without a factory."""
    return Tools(clock, Timekeeper(clock), random.Random(1), metrics or Metrics())


def places(config: Config) -> dict[Role, Place]:
    """Where each dependency is."""
    factory = Factory(config)
    return {role: factory.place(role) for role in Role}
