"""An ingress that a test looks into."""

from __future__ import annotations

from router.messages import Message


class Kept:
    """An ingress that keeps what is accepted."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, message: Message) -> None:
        self.messages.append(message)

    async def backlog(self) -> None:
        return None

    async def probe(self) -> None:
        return None
