"""Where the contract tests' components keep their state: one class for each backend, all by one face."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from router.config import Config, Embedded, Limits, Online
from router.factory import Factory

CAP = 20
Durability = Literal["online-store", "write-through"]


class Stores(Protocol):
    """State that no other test sees. Every factory of one ``Stores`` works on the same."""

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        """The configuration of one process; ``cap`` is ``limits.queue_messages``."""
        ...

    async def pushed(self, factory: Factory) -> list[str]:
        """The ids of all push commands so far, in their order."""
        ...

    async def letters(self, factory: Factory) -> list[tuple[str, str]]:
        """(id, reason) of all dead letters so far, in their order."""
        ...


class EmbeddedStores:
    """``Stores`` in one SQLite file."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def config(self, *, cap: int = CAP, durability: Durability = "online-store") -> Config:
        return Config(
            embedded=Embedded(data_dir=self._data_dir),
            limits=Limits(queue_messages=cap),
            online=Online(durability=durability),
        )

    async def pushed(self, factory: Factory) -> list[str]:
        return [entry.id for entry in await (await factory.outbox()).list(0, 10_000)]

    async def letters(self, factory: Factory) -> list[tuple[str, str]]:
        box = await factory.dead_letter_box()
        return [(letter.id, letter.reason) for _, letter in await box.list(0, 1000)]
