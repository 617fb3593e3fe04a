"""Push commands and dead letters over Pub/Sub: a topic each, and the subscription that keeps the dead letters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from router.backends.base import OutboxEntry
from router.backends.pubsub.bodies import dead_letter, letter_of
from router.backends.pubsub.leases import Leases
from router.backends.pubsub.publisher import Publisher
from router.backends.pubsub.wire import PubSubApi
from router.clock import Clock
from router.errors import ConfigError
from router.interfaces import LetterPage, Receipt
from router.messages import DeadLetter, Message

PAGE = 200
"""Dead letters in a page; a page is replayed well within a lease."""


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
    """``DeadLetterQueue``. Letters that are read and not removed are handed back at the end."""

    def __init__(self, leases: Leases, clock: Clock) -> None:
        self._leases = leases
        self._clock = clock

    async def pages(self) -> AsyncGenerator[LetterPage]:
        began = self._clock.now()
        try:
            while new := await self._leases.pull(PAGE):
                letters = sorted(((one.ack_id, letter_of(one.message)) for one in new), key=lambda one: one[1].at)
                yield [(ack_id, letter) for ack_id, letter in letters if letter.at <= began]
        finally:
            await self._leases.hand_back()

    async def remove(self, receipts: Sequence[Receipt]) -> None:
        await self._leases.acknowledge([str(receipt) for receipt in receipts])


class PubSubOutbox:
    """``Outbox``: the push commands that wait in a subscription of the notification service's.

    State: the receipts of the commands, by their numbers; the first command that it shows is number 1.
    """

    def __init__(self, api: PubSubApi, topic: str, subscription: str) -> None:
        """``topic``: its full name. ``subscription``: its full name; empty if nobody named one."""
        self._api = api
        self._topic = topic
        self._subscription = subscription
        self._leases = Leases(api, subscription)
        self._receipts: dict[int, str] = {}
        self._last = 0

    async def check(self) -> None:
        """Raise ``ConfigError`` unless the subscription can be looked at."""
        found = await self._api.get("subscription", self._subscription) if self._subscription else None
        if found is None:
            known = await self._api.call("list_topic_subscriptions", self._topic, topic=self._topic)
            names = [name.rpartition("/")[2] for name in known.subscriptions]
            there = f"it has {', '.join(names)}" if names else "it has none, so every push command is dropped"
            lacks = f"{self._subscription} is missing" if self._subscription else "--subscription is missing"
            raise ConfigError(f"{lacks}: name a subscription of {self._topic} to look at; {there}")
        if found.topic != self._topic:
            raise ConfigError(f"{self._subscription} is a subscription of {found.topic}, and not of {self._topic}")
        if found.push_config.push_endpoint:
            raise ConfigError(f"{self._subscription} sends its commands to an endpoint, so nobody can pull them")

    async def list(self, after: int, limit: int) -> list[OutboxEntry]:
        del after  # what was seen is not returned again
        new = await self._leases.pull(limit)
        numbered = list(enumerate(new, self._last + 1))
        self._receipts |= {number: one.ack_id for number, one in numbered}
        self._last += len(new)
        return [_entry(number, one.message) for number, one in numbered]

    async def remove(self, numbers: Sequence[int]) -> None:
        await self._leases.acknowledge([self._receipts.pop(number) for number in numbers])

    async def hand_back(self) -> None:
        """Let the notification service have what was shown and not removed."""
        await self._leases.hand_back()


def _entry(number: int, message: Any) -> OutboxEntry:
    """Read what ``bodies.push_command`` and ``bodies.notification_request`` made."""
    return OutboxEntry(
        number,
        message.attributes.get("messageId", ""),
        message.attributes.get("recipientId", ""),
        message.data,
        message.publish_time.ToMicroseconds(),
    )
