"""One subscription of the simulated Pub/Sub."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.pubsub_v1.types import pubsub as types

from tests.sim.vendors.grpc_channel import Caller, Status, StreamEnd

if TYPE_CHECKING:
    from tests.sim.vendors.pubsub_server import PubSub

BATCH = 100
"""Messages in one answer on a stream."""


class Entry:
    """One message, as this subscription has it."""

    __slots__ = ("acked", "attempt", "message", "number", "out", "until")

    def __init__(self, number: int, message: Any) -> None:
        self.number = number
        self.message = message
        self.attempt = 0
        self.acked = False
        self.out = ""
        """The id under which it is out for delivery."""
        self.until = 0.0
        """When its lease ends."""


class Subscription:
    """What waits, what is out, and who reads."""

    def __init__(self, service: PubSub, settings: Any) -> None:
        self.settings = settings
        self._service = service
        self._place = service.place
        self._lanes: dict[str, list[Entry]] = {}
        """By ordering key; each message without one, or where there is no order, has a lane of its own."""
        self._by_id: dict[str, tuple[str, Entry]] = {}
        self._owner: dict[str, object] = {}
        """Who has what is out of a key."""
        self._streams: list[tuple[StreamEnd, int]] = []
        self._pulls: list[tuple[Caller, int, asyncio.Future[list[bytes]]]] = []
        self._count = 0
        self._ids = 0

    def add(self, message: Any) -> None:
        """``message`` was published."""
        self._count += 1
        key = message.ordering_key if self.settings.enable_message_ordering else ""
        kept = types.PubsubMessage.pb()()
        kept.CopyFrom(message)
        self._lanes.setdefault(key or f"\0{self._count}", []).append(Entry(self._count, kept))

    def waiting(self) -> Iterator[Any]:
        """All that is not acknowledged."""
        return (entry.message for lane in self._lanes.values() for entry in lane if not entry.acked)

    # Readers.

    def join(self, stream: StreamEnd, seconds: int) -> None:
        self._streams.append((stream, seconds))
        self.hand_out()

    def pull(self, caller: Caller, limit: int, *, wait: bool) -> list[bytes] | asyncio.Future[list[bytes]]:
        taken = self._take(caller, limit, self.settings.ack_deadline_seconds)
        if taken or not wait:
            return [types.PullResponse.pb()(received_messages=taken).SerializeToString()]
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self._pulls.append((caller, limit, answer))
        if caller.seconds is not None:
            # A call ends with nothing before its time is over.
            self._place.later(max(0.0, caller.seconds - 1), self._answer_with_nothing, answer)
        return answer

    def _answer_with_nothing(self, answer: asyncio.Future[list[bytes]]) -> None:
        if not answer.done():
            self._pulls = [pull for pull in self._pulls if pull[2] is not answer]
            answer.set_result([types.PullResponse.pb()().SerializeToString()])

    def close(self) -> None:
        """It is deleted."""
        for stream, _ in self._streams:
            stream._over(grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), grpc.aio.Metadata(), ""))

    def hand_out(self) -> None:
        """Give to those who read what may go out now."""
        chance = self._place.chance
        self._streams = [(stream, seconds) for stream, seconds in self._streams if stream.open]
        readers = list(self._streams)
        while readers:
            stream, seconds = readers.pop(chance.randrange(len(readers)))
            while taken := self._take(stream, BATCH, seconds):
                stream.push([types.StreamingPullResponse.pb()(received_messages=taken).SerializeToString()])
        self._answer_pulls()

    def _answer_pulls(self) -> None:
        waiting, self._pulls = self._pulls, []
        for caller, limit, answer in waiting:
            # Of a caller that is gone the service knows mostly; what it hands to one is lost until the lease ends.
            if not caller.there and self._place.chance.random() < 0.8:
                continue
            taken = self._take(caller, limit, self.settings.ack_deadline_seconds)
            if taken:
                answer.set_result([types.PullResponse.pb()(received_messages=taken).SerializeToString()])
            else:
                self._pulls.append((caller, limit, answer))

    def _take(self, reader: object, limit: int, seconds: int) -> list[Any]:
        taken: list[Any] = []
        for key, lane in list(self._lanes.items()):
            if any(entry.out for entry in lane) and self._owner.get(key) is not reader:
                continue
            for entry in lane:
                if entry.acked or entry.out:
                    continue
                if len(taken) >= limit:
                    return taken
                if not self._bury(key, entry):
                    self._owner[key] = reader
                    taken.append(self._hand_out(key, entry, seconds))
        return taken

    def _hand_out(self, key: str, entry: Entry, seconds: int) -> Any:
        chance = self._place.chance
        self._ids += 1
        entry.attempt += 1
        entry.out = f"{self.settings.name}:{self._ids}"
        self._by_id[entry.out] = (key, entry)
        self._lease(entry, seconds)
        if entry.attempt == 1 and self._service.duplicates and chance.random() < self._service.duplicates:
            self._place.later(chance.random() * 2, self._again, key, entry)
        attempt = entry.attempt if self._most_attempts else 0
        return types.ReceivedMessage.pb()(message=entry.message, ack_id=entry.out, delivery_attempt=attempt)

    # Leases.

    def _lease(self, entry: Entry, seconds: float) -> None:
        entry.until = self._place.now() + seconds
        self._place.later(seconds, self._expire, entry.out)

    def _expire(self, ack_id: str) -> None:
        key, entry = self._by_id.get(ack_id, ("", None))
        if entry is None or entry.out != ack_id:
            return
        if entry.until <= self._place.now():
            self._again(key, entry)

    def _again(self, key: str, entry: Entry) -> None:
        """Deliver this once more, and what follows it."""
        for other in self._lanes.get(key, ()):
            behind = other.number >= entry.number
            if behind and (other is entry or not other.acked or self._place.chance.random() < 0.5):
                self._free(other)
                other.acked = False
        self._owner.pop(key, None)
        self.hand_out()

    def _free(self, entry: Entry) -> None:
        self._by_id.pop(entry.out, None)
        entry.out = ""

    def ack(self, ids: Sequence[str]) -> None:
        """These are done, unless they were handed out anew since."""
        for id_ in ids:
            key, entry = self._by_id.get(id_, ("", None))
            if entry is not None and entry.out == id_:
                self._free(entry)
                entry.acked = True
                self._tidy(key)
        self.hand_out()

    def _tidy(self, key: str) -> None:
        """Forget what can never be delivered again."""
        lane = self._lanes[key]
        if key.startswith("\0") and not self._service.duplicates and all(entry.acked for entry in lane):
            del self._lanes[key]

    def extend(self, ids: Sequence[str], seconds: int) -> None:
        """Keep these for ``seconds`` more; 0 hands them back."""
        back: dict[str, Entry] = {}
        for id_ in ids:
            key, entry = self._by_id.get(id_, ("", None))
            if entry is None or entry.out != id_:
                continue
            if seconds:
                self._lease(entry, seconds)
            elif key not in back or entry.number < back[key].number:
                back[key] = entry
        for key, entry in back.items():
            self._again(key, entry)

    # Dead letters.

    @property
    def _most_attempts(self) -> int:
        most: int = self.settings.dead_letter_policy.max_delivery_attempts
        return most

    def _bury(self, key: str, entry: Entry) -> bool:
        """Whether it was delivered too often, and is a dead letter from here on."""
        if not self._most_attempts or entry.attempt < self._most_attempts:
            return False
        entry.acked = True
        topic = self.settings.dead_letter_policy.dead_letter_topic
        try:
            subscriptions = self._service._topic(topic)
        except Status:
            entry.acked = False
            return False
        for subscription in subscriptions:
            subscription.add(entry.message)
            self._place.later(0.0, subscription.hand_out)
        return True
