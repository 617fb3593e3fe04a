"""What the load does: senders, and recipients who fetch, keep and acknowledge. One process, one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol
from uuid import uuid4

from msgspec import Struct

from benchmarks import mail
from benchmarks.figures import Turn
from benchmarks.load_http import Http, LoadError, ack, connections, fetch, next_page, post
from benchmarks.load_sockets import sockets
from benchmarks.mail import Received, Stamp
from benchmarks.servers import Measured, Target
from router.bench.latencies import Latencies
from router.bench.ledger import Ledger

ACCEPTED, OK, DONE = 202, 200, 204
PAGE = 50
WARM_UP = 20
"""Requests of each sender before anything is measured: connections are made, tokens verified."""
ARRIVAL_SECONDS = 60.0
"""What has not arrived by then, after the last send, is lost."""


class Bound(Struct, frozen=True):
    """A load ends with whichever comes first."""

    count: int
    seconds: float


class Sent(Struct):
    """What senders achieved."""

    count: int
    seconds: float
    latencies: Latencies

    @property
    def per_second(self) -> float:
        return self.count / self.seconds


class Mailbox:
    """A recipient's name and ledger."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.ledger = Ledger(user)

    def envelope(self) -> tuple[int, bytes]:
        """Number and envelope of the next message."""
        at = time.perf_counter_ns()
        number = self.ledger.begin(at)
        return number, mail.envelope(self.user, number, at)

    def accepted(self, number: int, id_: str) -> None:
        """The message was answered 202."""
        self.ledger.accepted(number, id_, time.perf_counter_ns())

    def hold(self, messages: Sequence[Received], asked: int) -> list[Stamp]:
        """The recipient fetched these at ``asked``; raises ``LoadError`` where a promise is broken."""
        stamps = [message.stamp for message in messages]
        self.ledger.returned(zip((stamp.number for stamp in stamps), (m.id for m in messages), strict=True), asked)
        self._prove()
        return stamps

    def acknowledged(self, messages: Iterable[Received]) -> None:
        self.ledger.acknowledged((message.id for message in messages), time.perf_counter_ns())

    def check(self) -> None:
        """Raise ``LoadError`` unless all that was accepted is held."""
        self.ledger.close()
        self._prove()

    def _prove(self) -> None:
        if self.ledger.examples:
            raise LoadError(f"{self.ledger.faults.total()} broken promises: {'; '.join(self.ledger.examples)}")


def mailboxes(name: str, count: int) -> list[Mailbox]:
    return [Mailbox(mail.user(name, number)) for number in range(count)]


class Writer(Protocol):
    """One person who sends one message at a time."""

    async def send(self, mailbox: Mailbox, /) -> None:
        """Return once it is accepted."""


class Client(Protocol):
    """A person online."""

    acknowledged: int
    """How many messages it has acknowledged."""


class Sender:
    """A ``Writer`` on one connection to a router."""

    def __init__(self, connection: Http, token: str) -> None:
        self._connection = connection
        self._token = token

    async def send(self, mailbox: Mailbox, key: str = "") -> None:
        """Return once it is accepted."""
        number, envelope = mailbox.envelope()
        answer = await self._connection.request(post("/api/send", self._token, envelope, key), ACCEPTED)
        mailbox.accepted(number, mail.accepted(answer))

    async def send_together(self, to: Sequence[Mailbox]) -> None:
        """Return once a message to each is accepted, by one request."""
        messages = [(mailbox, *mailbox.envelope()) for mailbox in to]
        body = mail.together(envelope for _, _, envelope in messages)
        answer = await self._connection.request(post("/api/send/batch", self._token, body), ACCEPTED)
        for (mailbox, number, _), id_ in zip(messages, mail.all_accepted(answer), strict=True):
            mailbox.accepted(number, id_)


class KeyedSender:
    """A ``Writer`` whose messages have an Idempotency-Key of their own each."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def send(self, mailbox: Mailbox, /) -> None:
        await self._sender.send(mailbox, str(uuid4()))


@contextlib.asynccontextmanager
async def senders(server: Target, count: int) -> AsyncIterator[list[Sender]]:
    """``count`` people, each with a connection and a token of their own."""
    async with connections(server.port, count) as opened:
        yield [
            Sender(connection, server.token(mail.user("sender", number))) for number, connection in enumerate(opened)
        ]


async def send_all(people: Sequence[Writer], to: Sequence[Mailbox], bound: Bound) -> Sent:
    """Closed loop: everybody sends the next message when the last is accepted; recipients take turns."""
    numbers, latencies = itertools.count(), Latencies()
    started = time.perf_counter()

    async def go(sender: Writer) -> None:
        while (number := next(numbers)) < bound.count and (at := time.perf_counter()) < started + bound.seconds:
            await sender.send(to[number % len(to)])
            latencies.add(time.perf_counter() - at)

    await together(go(sender) for sender in people)
    return Sent(len(latencies), time.perf_counter() - started, latencies)


async def send_to_group(sender: Sender, group: Sequence[Mailbox], bound: Bound) -> Sent:
    """Closed loop: a message to each of ``group`` by one request, again and again. Latencies are those of requests."""
    latencies, started = Latencies(), time.perf_counter()
    while len(latencies) * len(group) < bound.count and (at := time.perf_counter()) < started + bound.seconds:
        await sender.send_together(group)
        latencies.add(time.perf_counter() - at)
    return Sent(len(latencies) * len(group), time.perf_counter() - started, latencies)


async def warm_up(server: Measured, people: Sequence[Writer], name: str = "warm") -> None:
    """Some sends that nobody counts."""
    await send_all(people, mailboxes(name, len(people)), Bound(WARM_UP * len(people), 10))
    await settled(server)


class Reader:
    """A recipient's HTTP side; keeps what it fetched in the ledger before it acknowledges."""

    def __init__(self, connection: Http, token: str, mailbox: Mailbox, limit: int = PAGE) -> None:
        self._connection = connection
        self._token = token
        self._request = fetch(token, limit)
        self._limit = limit
        self._mailbox = mailbox
        self._asked = 0

    async def fetch(self) -> list[Received]:
        self._asked = time.perf_counter_ns()
        return mail.batch(await self._connection.request(self._request, OK)).messages

    async def next(self, messages: Sequence[Received]) -> list[Received]:
        """Acknowledge ``messages``, and fetch what comes behind them."""
        self._asked = time.perf_counter_ns()
        request = next_page(self._token, (message.id for message in messages), self._limit)
        page = mail.batch(await self._connection.request(request, OK)).messages
        self._mailbox.acknowledged(messages)
        return page

    async def acknowledge(self, messages: Sequence[Received]) -> None:
        await self._connection.request(ack(self._token, (message.id for message in messages)), DONE)
        self._mailbox.acknowledged(messages)

    async def take(self, kept: Callable[[list[Stamp]], None] | None = None) -> int:
        """Fetch a page, keep it, acknowledge it; returns how many messages it held.

        ``kept`` is told what they were, before they are acknowledged.
        """
        messages = await self.fetch()
        if messages:
            stamps = self.keep(messages)
            if kept is not None:
                kept(stamps)
            await self.acknowledge(messages)
        return len(messages)

    def keep(self, messages: Sequence[Received]) -> list[Stamp]:
        """Enter what was fetched last into the ledger, in its order."""
        return self._mailbox.hold(messages, self._asked)


class Waits(Struct):
    """What the messages of a crowd took, each from its sending."""

    poked: Latencies
    """Until its recipient was poked for it; until it was held, where a fetch that was under way anyway brought it."""
    held: Latencies


class SmartClient:
    """A person online: on each poke fetches, then keeps, acknowledges and fetches in one call until nothing is left."""

    def __init__(self, reader: Reader, waits: Waits) -> None:
        self.acknowledged = 0
        self._reader = reader
        self._waits = waits
        self._poked_at = 0
        self._fetched_for = 0
        self._mail_may_wait = asyncio.Event()

    def poked(self) -> None:
        self._poked_at = time.perf_counter_ns()
        self._mail_may_wait.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._mail_may_wait.wait()
            self._begin()
            page = await self._reader.fetch()
            while page:
                self._note(self._reader.keep(page))
                self._begin()
                behind = await self._reader.next(page)
                self.acknowledged += len(page)
                page = behind

    def _begin(self) -> None:
        # A poke that comes before a fetch begins is answered by that fetch; one that comes later is not.
        self._mail_may_wait.clear()
        self._fetched_for = self._poked_at

    def _note(self, stamps: Sequence[Stamp]) -> None:
        now = time.perf_counter_ns()
        for stamp in stamps:
            told = self._fetched_for if self._fetched_for >= stamp.sent_at else now
            self._waits.poked.add((told - stamp.sent_at) / 1e9)
            self._waits.held.add((now - stamp.sent_at) / 1e9)


class Crowd:
    """People online, and what they got."""

    def __init__(self, clients: Sequence[Client], waits: Waits) -> None:
        self._clients = clients
        self.waits = waits

    @property
    def acknowledged(self) -> int:
        return sum(client.acknowledged for client in self._clients)

    def forget(self) -> None:
        """What was until now does not count."""
        self.waits.poked.clear()
        self.waits.held.clear()
        for client in self._clients:
            client.acknowledged = 0

    async def finish(self, count: int) -> None:
        """Return when ``count`` messages are acknowledged; raises ``LoadError`` where they do not come."""
        deadline = time.perf_counter() + ARRIVAL_SECONDS
        while self.acknowledged < count:
            if time.perf_counter() > deadline:
                raise LoadError(f"{count - self.acknowledged} of {count} messages never arrived")
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def crowd(server: Target, boxes: Sequence[Mailbox]) -> AsyncIterator[Crowd]:
    """Each of ``boxes`` online with a socket and a connection."""
    tokens, waits = [server.token(box.user) for box in boxes], Waits(Latencies(), Latencies())
    async with connections(server.port, len(boxes)) as opened:
        clients = [
            SmartClient(Reader(connection, token, box), waits)
            for connection, token, box in zip(opened, tokens, boxes, strict=True)
        ]
        wanted = [(token, client.poked) for token, client in zip(tokens, clients, strict=True)]
        async with sockets(server.sockets_port, wanted), background(client.run() for client in clients):
            yield Crowd(clients, waits)


async def drain(connection: Http, token: str, mailbox: Mailbox, limit: int) -> int:
    """Take pages until nothing is left; returns how many messages there were."""
    reader, count = Reader(connection, token, mailbox, limit), 0
    while taken := await reader.take():
        count += taken
    return count


async def drain_by_next(connection: Http, token: str, mailbox: Mailbox, limit: int) -> int:
    """The same, where each page but the first comes with the acknowledgement of the one before."""
    reader, count = Reader(connection, token, mailbox, limit), 0
    page = await reader.fetch()
    while page:
        reader.keep(page)
        count += len(page)
        page = await reader.next(page)
    return count


async def settled(server: Measured) -> None:
    """Return once the server is idle."""
    await asyncio.to_thread(server.settle)


async def cost(server: Measured, work: Coroutine[Any, Any, Sent]) -> Turn:
    """Do ``work``; its rate, and its CPU time until the server is idle again."""
    before, written = server.cpu_seconds(), server.written_bytes()
    load, started = time.process_time(), time.perf_counter()
    sent = await work
    share = (time.process_time() - load) / (time.perf_counter() - started)
    await settled(server)
    cpu, written = server.cpu_seconds() - before, server.written_bytes() - written
    return Turn(sent.per_second, 1000 * cpu / sent.count, sent.latencies, written / sent.count, share)


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first error is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


@contextlib.asynccontextmanager
async def background(work: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Do ``work`` until the block is left; an error in it ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
