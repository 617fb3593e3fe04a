"""The load's AMQP, by RabbitMQ's own client on this event loop: a connection, a channel and a durable queue each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pika import BasicProperties, ConnectionParameters, spec
from pika.adapters.asyncio_connection import AsyncioConnection

from benchmarks import mail
from benchmarks.load import Crowd, Mailbox, Waits, background
from benchmarks.load_http import ANSWER_SECONDS, HOST, LoadError
from benchmarks.mail import Received
from router.bench.latencies import Latencies

PREFETCH = 1000
"""How many messages a recipient is sent ahead of its acknowledgements."""


class Person:
    """One channel on one connection; asks the broker one thing at a time."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Is given a ``LoadError`` when a promise is broken, or the broker closes the connection or the channel."""
        self.failed.add_done_callback(lambda failed: failed.cancelled() or failed.exception())  # nobody may ask
        self._connection: Any = None
        self._channel: Any = None
        self._answer: asyncio.Future[Any] | None = None

    async def open(self, port: int) -> None:
        def connect(told: Callable[[object], None]) -> None:
            self._connection = AsyncioConnection(
                ConnectionParameters(HOST, port),
                on_open_callback=told,
                on_open_error_callback=self._ended,
                on_close_callback=self._ended,
                custom_ioloop=asyncio.get_running_loop(),
            )

        await self.ask(connect)
        self._channel = await self.ask(lambda told: self._connection.channel(on_open_callback=told))
        self._channel.add_on_close_callback(self._ended)

    async def queue(self, mailbox: Mailbox, *, new: bool) -> int:
        """Declare the durable queue of ``mailbox``, or find it; returns how many messages are ready in it."""
        found = await self.ask(
            lambda told: self._channel.queue_declare(mailbox.user, durable=True, passive=not new, callback=told)
        )
        return int(found.method.message_count)

    async def ask(self, call: Callable[[Callable[[object], None]], object]) -> Any:
        """Make a ``call`` of the client; returns what it tells the callback that it was given."""
        self._answer = asyncio.get_running_loop().create_future()
        silence = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self.fail, "RabbitMQ does not answer")
        call(self._told)
        try:
            return await self._answer
        finally:
            silence.cancel()

    def fail(self, why: str) -> None:
        for future in (self.failed, self._answer):
            if future is not None and not future.done():
                future.set_exception(LoadError(why))

    async def close(self) -> None:
        """Return when the broker has done all that it was asked on this connection."""
        self.failed.cancel()
        if self._connection is not None and self._connection.is_open:
            ended = asyncio.get_running_loop().create_future()
            self._connection.add_on_close_callback(lambda *_: ended.set_result(None))
            self._connection.close()
            async with asyncio.timeout(ANSWER_SECONDS):
                await ended

    def _told(self, answer: object) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _ended(self, _: object, reason: object) -> None:
        self.fail(f"RabbitMQ closed a connection: {reason}")


class AmqpSender(Person):
    """A ``Writer``, who waits for the broker's confirmation of each message."""

    async def open(self, port: int) -> None:
        await super().open(port)
        self._channel.add_on_return_callback(lambda *_: self.fail("RabbitMQ has no queue for a message"))
        await self.ask(lambda told: self._channel.confirm_delivery(self._confirmed, callback=told))

    async def send(self, mailbox: Mailbox, /) -> None:
        number, envelope = mailbox.envelope()
        id_ = f"{mailbox.user}:{number}"
        properties = BasicProperties(delivery_mode=spec.PERSISTENT_DELIVERY_MODE, message_id=id_)
        await self.ask(lambda _: self._channel.basic_publish("", mailbox.user, envelope, properties, mandatory=True))
        mailbox.accepted(number, id_)

    def _confirmed(self, frame: Any) -> None:
        if isinstance(frame.method, spec.Basic.Ack):
            self._told(frame)
        else:
            self.fail("RabbitMQ refused a message")


class AmqpRecipient(Person):
    """A person online, who is sent what is in the queue, keeps it, and then acknowledges it, ``page`` at once."""

    def __init__(self, mailbox: Mailbox, waits: Waits, page: int) -> None:
        super().__init__()
        self.acknowledged = 0
        self._mailbox = mailbox
        self._waits = waits
        self._page = page
        self._held: list[Received] = []

    async def consume(self) -> None:
        await self.ask(lambda told: self._channel.basic_qos(prefetch_count=PREFETCH, callback=told))
        await self.ask(lambda told: self._channel.basic_consume(self._mailbox.user, self._delivered, callback=told))

    def _delivered(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        now = time.perf_counter_ns()
        message = mail.received(properties.message_id, body)
        try:
            (stamp,) = self._mailbox.hold([message], now)
        except LoadError as error:
            self.fail(str(error))
            return
        self._waits.held.add((now - stamp.sent_at) / 1e9)
        self._held.append(message)
        if len(self._held) == self._page:
            channel.basic_ack(method.delivery_tag, multiple=True)
            self._mailbox.acknowledged(self._held)
            self.acknowledged += len(self._held)
            self._held.clear()


@contextlib.asynccontextmanager
async def amqp_senders(port: int, count: int) -> AsyncIterator[list[AmqpSender]]:
    """``count`` of them."""
    people = [AmqpSender() for _ in range(count)]
    async with _opened(people, port):
        yield people


@contextlib.asynccontextmanager
async def amqp_crowd(port: int, boxes: Sequence[Mailbox]) -> AsyncIterator[Crowd]:
    """Each of ``boxes`` online; each message is acknowledged by itself."""
    waits = Waits(Latencies(), Latencies())
    people = [AmqpRecipient(box, waits, 1) for box in boxes]
    async with _opened(people, port), background(_fail_with(person) for person in people):
        for person in people:
            await person.consume()
        yield Crowd(people, waits)


async def drained_per_second(port: int, mailbox: Mailbox, count: int, page: int) -> float:
    """``count`` messages that wait for one person, who acknowledges ``page`` at once; a multiple of that."""
    waits = Waits(Latencies(), Latencies())
    (person,) = people = [AmqpRecipient(mailbox, waits, page)]
    async with _opened(people, port), background([_fail_with(person)]):
        started = time.perf_counter()
        await person.consume()
        await Crowd(people, waits).finish(count)
        return count / (time.perf_counter() - started)


async def declare(port: int, boxes: Sequence[Mailbox]) -> None:
    """A durable queue for each of ``boxes``."""
    (person,) = people = [Person()]
    async with _opened(people, port):
        for box in boxes:
            await person.queue(box, new=True)


async def check(port: int, boxes: Sequence[Mailbox]) -> None:
    """Raise ``LoadError`` unless all that was accepted is held, and RabbitMQ has nothing left."""
    (person,) = people = [Person()]
    async with _opened(people, port):
        for box in boxes:
            box.check()
            if left := await person.queue(box, new=False):
                raise LoadError(f"{left} messages of {box.user} came back after their acknowledgement")


@contextlib.asynccontextmanager
async def _opened(people: Sequence[Person], port: int) -> AsyncIterator[None]:
    try:
        for person in people:
            await person.open(port)
        yield
    finally:
        for person in people:
            await person.close()


async def _fail_with(person: Person) -> None:
    await person.failed
