"""The sentinels, which name the master of a service."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis, Sentinel


class Sentinels(Sentinel):
    """redis-py's client of them, with a list of its own for each search.

    In redis-py each search swaps two places of the one list when it ends. Of two at the same time, the second can write
    over a sentinel, which is then never asked again, nor closed.
    """

    sentinels: list[Redis]
    """In the order in which they are asked."""

    def __init__(self, hosts: Sequence[tuple[str, int]], options: Mapping[str, Any]) -> None:
        """``options``: of connections to a sentinel."""
        super().__init__(hosts, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # redis-py has no types for it

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        search: Any = copy.copy(self)
        search.sentinels = list(self.sentinels)
        found: tuple[str, int] = await Sentinel.discover_master(search, service_name)
        self.sentinels.sort(key=lambda one: one is not search.sentinels[0])
        return found

    def ask_next(self) -> None:
        """Ask the sentinel last that comes first now: it has named a server that is not the master."""
        self.sentinels.append(self.sentinels.pop(0))
