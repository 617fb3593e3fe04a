"""Push commands and dead letters over Pub/Sub: a topic each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from router.backends.pubsub.bodies import dead_letter
from router.backends.pubsub.publishing import Publisher
from router.messages import DeadLetter, Message


class PubSubPushNotifier:
    """``PushNotifier``; one recipient's commands keep their order."""

    def __init__(self, publisher: Publisher, command: Callable[[Message], Any]) -> None:
        """``command``: the form of a command, from ``bodies``."""
        self._publisher = publisher
        self._command = command

    async def publish(self, messages: Sequence[Message]) -> None:
        await self._publisher.publish([self._command(message) for message in messages])


class PubSubDeadLetters:
    """``DeadLetters``."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, letters: Sequence[DeadLetter]) -> None:
        await self._publisher.publish([dead_letter(letter) for letter in letters])
