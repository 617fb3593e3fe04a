"""An ingress that a test looks into."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import RouterError
from router.messages import Message


class Kept:
    """An ingress that keeps what is accepted."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> list[RouterError | None]:
        self.messages.extend(messages)
        return [None] * len(messages)

    async def backlog(self) -> None:
        return None

    async def probe(self) -> None:
        return None
