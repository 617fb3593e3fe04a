"""What wakes and excludes processes, by the rules of the real things: datagrams, a lock on a file, a topic."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec import structs

from router.messages import Delivery, Message
from tests.sim.loop import Process, SimLoop
from tests.sim.stores import flipped

LOST_IN_A_ROW = 2
STANDBY_SECONDS = 0.1
"""How long at most a process that waits for a lock takes to notice that it is free."""


class Post:
    """Between the processes: who listens to what."""

    def __init__(self, loop: SimLoop, chance: random.Random, lost_pokes: float) -> None:
        self.loop = loop
        self._chance = chance
        self._lost_pokes = lost_pokes
        self._lost: dict[str, int] = {}
        self.lost_at: dict[tuple[str, str], float] = {}
        """By node and user: when the last poke was lost on its way."""
        self.wakes: dict[str, list[tuple[Process, asyncio.Event]]] = {}
        self.pokes: dict[str, tuple[Process, asyncio.Queue[list[str]]]] = {}

    def calm(self) -> None:
        """From here on nothing is lost."""
        self._lost_pokes = 0.0

    def notify(self, channel: str, sender: Process | None) -> None:
        for process, event in self.wakes.get(channel, ()):
            if process.alive and process is not sender:
                self._deliver(process, event.set)

    def poke(self, node: str, users: Sequence[str]) -> None:
        """May be lost, late and doubled; but of all that repeat it, not each one is lost."""
        lost = self._lost.get(node, 0) < LOST_IN_A_ROW and self._chance.random() < self._lost_pokes
        self._lost[node] = self._lost.get(node, 0) + 1 if lost else 0
        if lost:
            self.lost_at |= dict.fromkeys(((node, user) for user in users), self.loop.time())
        if node not in self.pokes or lost:
            return
        process, arrived = self.pokes[node]
        copies = 2 if self._lost_pokes and self._chance.random() < 0.1 else 1
        for _ in range(copies):
            self._deliver(process, arrived.put_nowait, list(users))

    def _deliver(self, process: Process, callback: object, *args: object) -> None:
        self.loop.call_later(self._chance.random() * 0.005, callback, *args, context=process.context)


class SimSignals:
    """``Signalling`` of one process."""

    def __init__(self, post: Post, process: Process) -> None:
        self._post = post
        self._process = process
        self._own: dict[str, asyncio.Event] = {}
        self._notified: set[str] = set()

    def wakes(self, channel: str) -> asyncio.Event:
        if channel not in self._own:
            event = self._own[channel] = asyncio.Event()
            self._post.wakes.setdefault(channel, []).append((self._process, event))
        return self._own[channel]

    def notify(self, channel: str) -> None:
        if channel in self._own:
            self._own[channel].set()
        # As in the real thing, others are told in a turn of its own.
        if channel not in self._notified:
            self._notified.add(channel)
            asyncio.get_running_loop().call_soon(self._notify_others, channel)

    def _notify_others(self, channel: str) -> None:
        self._notified.discard(channel)
        self._post.notify(channel, self._process)

    async def pokes(self, node: str) -> AsyncIterator[list[str]]:
        arrived: asyncio.Queue[list[str]] = asyncio.Queue()
        self._post.pokes[node] = (self._process, arrived)
        while True:
            yield await arrived.get()

    def poke(self, node: str, users: Sequence[str]) -> None:
        self._post.poke(node, users)


class Locks:
    """Locks on files."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self._holders: dict[str, Process] = {}

    def take(self, name: str, process: Process) -> bool:
        holder = self._holders.get(name)
        if holder is not None and holder is not process and holder.alive:
            return False
        self._holders[name] = process
        return True

    def release(self, name: str, process: Process) -> None:
        if self._holders.get(name) is process:
            del self._holders[name]


class SimLock:
    """``Lock`` of one process."""

    def __init__(self, locks: Locks, name: str, process: Process) -> None:
        self._locks = locks
        self._name = name
        self._process = process

    def take(self) -> bool:
        return self._locks.take(self._name, self._process)

    async def wait(self) -> None:
        await self._locks.loop.pause(STANDBY_SECONDS)
        while not self.take():
            await self._locks.loop.pause(STANDBY_SECONDS)

    def release(self) -> None:
        self._locks.release(self._name, self._process)


ACK_SECONDS = 12.0
"""A delivery that is neither acknowledged nor handed back by then is delivered again, unless its holder still lives;
sometimes also then, as when an extension is lost."""
LOST_EXTENSIONS = 0.05


class Stream:
    """One consumer's open stream."""

    __slots__ = ("process", "torn")

    def __init__(self, process: Process) -> None:
        self.process = process
        self.torn = False

    @property
    def holds(self) -> bool:
        return self.process.alive and not self.process.paused and not self.torn


class _Entry:
    __slots__ = ("acked", "attempt", "message", "number", "out", "stream")

    def __init__(self, number: int, message: Message) -> None:
        self.number = number
        self.message = message
        self.attempt = 0
        self.acked = False
        self.out: int | None = None
        """The receipt under which it is out for delivery."""
        self.stream: Stream | None = None


class Topic:
    """A topic with ordering keys and one subscription: at least once, in order for each key.

    What is delivered again brings back all that follows it for its key, acknowledged or not.
    """

    def __init__(self, loop: SimLoop, server: Process, chance: random.Random, duplicates: float) -> None:
        self._loop = loop
        self._context = server.context
        self._chance = chance
        self._duplicates = duplicates
        self._lost_extensions = LOST_EXTENSIONS
        self._keys: dict[str, list[_Entry]] = {}
        self._by_receipt: dict[int, _Entry] = {}
        self._owner: dict[str, Stream] = {}
        self._receipts = 0
        self._numbers = 0
        self._arrived: list[asyncio.Future[None]] = []

    def calm(self) -> None:
        """From here on what is held is extended, and nothing is delivered twice."""
        self._duplicates = self._lost_extensions = 0.0

    def publish(self, message: Message) -> None:
        self._numbers += 1
        self._keys.setdefault(message.recipient, []).append(_Entry(self._numbers, message))
        self._wake()

    def waiting(self) -> list[Message]:
        """What is not acknowledged."""
        return [entry.message for entries in self._keys.values() for entry in entries if not entry.acked]

    def flip(self, chance: random.Random) -> str | None:
        """A bit of a message is another; returns which message, if there is one."""
        entries = [entry for entries in self._keys.values() for entry in entries if not entry.acked]
        if not entries:
            return None
        entry = chance.choice(entries)
        entry.message = structs.replace(entry.message, envelope=flipped(entry.message.envelope, chance))
        return entry.message.id

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, []
        for future in arrived:
            if not future.done():
                future.set_result(None)

    def arrival(self) -> asyncio.Future[None]:
        """Done when there may be something new."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._arrived.append(future)
        return future

    def take(self, stream: Stream, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for key, entries in self._keys.items():
            out = any(entry.out is not None for entry in entries)
            if out and self._owner.get(key) is not stream:
                continue
            for entry in entries:
                if entry.acked or entry.out is not None:
                    continue
                if len(taken) == limit:
                    return taken
                self._owner[key] = entry.stream = stream
                taken.append(self._hand_out(key, entry))
        return taken

    def _hand_out(self, key: str, entry: _Entry) -> Delivery:
        self._receipts += 1
        entry.attempt += 1
        entry.out = self._receipts
        self._by_receipt[self._receipts] = entry
        self._later(ACK_SECONDS * (0.5 + self._chance.random()), self._expire, key, self._receipts)
        if entry.attempt == 1 and self._chance.random() < self._duplicates:
            self._later(self._chance.random() * 2, self._again, key, entry)
        return Delivery(entry.message, self._receipts, entry.attempt)

    def _later(self, seconds: float, callback: Callable[..., None], *args: object) -> None:
        self._loop.call_later(seconds, callback, *args, context=self._context)

    def _expire(self, key: str, receipt: int) -> None:
        entry = self._by_receipt.get(receipt)
        if entry is None or entry.out != receipt:
            return
        if entry.stream is not None and entry.stream.holds and self._chance.random() >= self._lost_extensions:
            self._later(ACK_SECONDS, self._expire, key, receipt)
        else:
            self._again(key, entry)

    def _again(self, key: str, entry: _Entry) -> None:
        """Deliver this once more, and what follows it."""
        for other in self._keys[key]:
            if other.number >= entry.number and (other is entry or not other.acked or self._chance.random() < 0.5):
                other.acked = False
                other.out = None
        self._owner.pop(key, None)
        self._wake()

    def ack(self, receipts: Sequence[int]) -> None:
        for receipt in receipts:
            entry = self._by_receipt.get(receipt)
            if entry is not None and entry.out == receipt:
                entry.out, entry.acked = None, True
        self._wake()

    def nack(self, receipts: Sequence[int]) -> None:
        for receipt in receipts:
            entry = self._by_receipt.get(receipt)
            if entry is not None and entry.out == receipt:
                self._again(entry.message.recipient, entry)
