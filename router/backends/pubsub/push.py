"""Push commands and dead letters over Pub/Sub: a topic each, and the subscription that keeps the dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from router.backends.pubsub.bodies import dead_letter, letter_of
from router.backends.pubsub.publisher import Publisher
from router.backends.pubsub.wire import PubSubApi
from router.clock import Clock
from router.interfaces import LetterPage, Receipt
from router.messages import DeadLetter, Message

PAGE = 200
"""Dead letters in a page; a page is replayed well within a lease."""
HAND_BACK = 1000
"""Receipts in one call that hands them back."""
PULL_SECONDS = 2.0
"""If none has come by then, none is left."""


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


class PubSubDeadLetterQueue:
    """``DeadLetterQueue``. Letters that are read and not removed are handed back at the end, or when their leases end.

    State: the receipts that it holds now.
    """

    def __init__(self, api: PubSubApi, subscription: str, clock: Clock) -> None:
        self._api = api
        self._subscription = subscription
        self._clock = clock
        self._held = set[Receipt]()

    async def pages(self) -> AsyncIterator[LetterPage]:
        began, seen = self._clock.now(), set[str]()
        while True:
            received = await self._api.pull(self._subscription, PAGE, PULL_SECONDS)
            new = [one for one in received if one.message.message_id not in seen]
            self._held.update(one.ack_id for one in received)
            if not new:
                break
            seen.update(one.message.message_id for one in new)
            letters = sorted(((one.ack_id, letter_of(one.message)) for one in new), key=lambda one: one[1].at)
            yield [(ack_id, letter) for ack_id, letter in letters if letter.at <= began]
        held = [str(receipt) for receipt in self._held]
        self._held.clear()
        for start in range(0, len(held), HAND_BACK):
            await self._api.modify_ack_deadline(self._subscription, held[start : start + HAND_BACK], 0)

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        await self._api.acknowledge(self._subscription, [str(receipt) for receipt in receipts])
        self._held.difference_update(receipts)
