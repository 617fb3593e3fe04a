"""A gRPC channel in memory: what Google's services are called by, without sockets and without the library's threads.

Requests and answers go over it as the bytes that they are, so that the two ends share nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, Self

import grpc

from tests.sim.vendors.wires import Fate, Place, Wire

Code = grpc.StatusCode
SILENT_SECONDS = 40.0
"""By then a channel has found out that its peer is gone."""


class Status(Exception):
    """A call that the service refuses."""

    def __init__(self, code: Code, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Service(Protocol):
    """A server of calls."""

    place: Place

    def call(self, name: str, request: bytes, caller: Caller) -> list[bytes] | asyncio.Future[list[bytes]]:
        """The answers to a call; raises ``Status``."""
        ...

    def stream(self, name: str, stream: StreamEnd) -> None:
        """A stream is open from here on."""
        ...


class Caller:
    """Who waits for an answer, as far as the service knows."""

    def __init__(self, wire: Wire, fate: Fate, answer: asyncio.Future[list[bytes]], seconds: float | None) -> None:
        self.fate = fate
        self.seconds = seconds
        """How long they wait; ``None``: for ever."""
        self._wire = wire
        self._answer = answer

    @property
    def there(self) -> bool:
        return self._wire.alive and not self._answer.done()


def failure(code: Code, details: str) -> grpc.aio.AioRpcError:
    """The library's error."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


class SimChannel:
    """``grpc.aio.Channel`` to one service, as much of it as the router uses."""

    def __init__(self, service: Service, wire: Wire) -> None:
        self._service = service
        self._wire = wire
        self._streams: list[StreamEnd] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        for stream in self._streams:
            stream.cancel()

    def unary_unary(
        self, path: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any]
    ) -> Any:
        name = path.rpartition("/")[2]

        async def call(request: Any, *, timeout: float | None = None, metadata: object = None) -> Any:  # noqa: ASYNC109 - as the library has it
            del metadata
            (answer,) = await self._ask(name, request_serializer(request), timeout)
            return response_deserializer(answer)

        return call

    def unary_stream(
        self, path: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any]
    ) -> Any:
        name = path.rpartition("/")[2]

        def call(request: Any, *, timeout: float | None = None, metadata: object = None) -> Answers:
            del metadata
            asking = self._ask(name, request_serializer(request), timeout)
            return Answers(asking, response_deserializer)

        return call

    def stream_stream(
        self, path: str, request_serializer: Callable[[Any], bytes], response_deserializer: Callable[[bytes], Any]
    ) -> Any:
        name = path.rpartition("/")[2]

        def call(*, metadata: object = None) -> StreamEnd:
            del metadata
            stream = StreamEnd(self._service, name, self._wire, request_serializer, response_deserializer)
            self._streams = [one for one in self._streams if not one.ended]
            self._streams.append(stream)
            return stream

        return call

    async def _ask(self, name: str, request: bytes, seconds: float | None) -> list[bytes]:
        fate = self._wire.fate(name)
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(_look)
        place = self._service.place
        if fate.request is not None:
            place.later(fate.request, self._arrived, name, request, Caller(self._wire, fate, answer, seconds), answer)
        elif fate.fails:
            place.later(fate.answer or 0.0, _fail, answer, Code.UNAVAILABLE, "simulated: it cannot be reached")
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            raise failure(Code.DEADLINE_EXCEEDED, "simulated: no answer in time") from error
        finally:
            answer.cancel()

    def _arrived(self, name: str, request: bytes, caller: Caller, answer: asyncio.Future[list[bytes]]) -> None:
        try:
            done = self._service.call(name, request, caller)
        except Status as status:
            if caller.fate.answer is not None:
                self._service.place.later(caller.fate.answer, _fail, answer, status.code, status.details)
            return
        if isinstance(done, list):
            self._answered(done, caller.fate, answer)
        else:
            done.add_done_callback(lambda found: self._answered(found.result(), caller.fate, answer))

    def _answered(self, found: list[bytes], fate: Fate, answer: asyncio.Future[list[bytes]]) -> None:
        place = self._service.place
        if fate.answer is None:
            return
        if fate.fails:
            code = place.chance.choice((Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED))
            place.later(fate.answer, _fail, answer, code, "simulated: it may have worked")
        else:
            place.later(fate.answer, _succeed, answer, found)


def _succeed(answer: asyncio.Future[list[bytes]], found: list[bytes]) -> None:
    if not answer.done():
        answer.set_result(found)


def _fail(answer: asyncio.Future[list[bytes]], code: Code, details: str) -> None:
    if not answer.done():
        answer.set_exception(failure(code, details))


def _look(answer: asyncio.Future[Any]) -> None:
    """Its caller may have died."""
    if not answer.cancelled():
        answer.exception()


class Answers:
    """What a call with many answers gives."""

    def __init__(self, asking: Any, deserializer: Callable[[bytes], Any]) -> None:
        self._asking = asking
        self._deserializer = deserializer

    async def __aiter__(self) -> AsyncIterator[Any]:
        asking, self._asking = self._asking, None
        for answer in await asking:
            yield self._deserializer(answer)

    def cancel(self) -> None:
        if self._asking is not None:
            self._asking.close()


class StreamEnd:
    """A stream in both directions: the caller's end, and below what the service knows of it."""

    def __init__(
        self,
        service: Service,
        name: str,
        wire: Wire,
        serializer: Callable[[Any], bytes],
        deserializer: Callable[[bytes], Any],
    ) -> None:
        self._service = service
        self._name = name
        self._wire = wire
        self._serializer = serializer
        self._deserializer = deserializer
        self._arrived: asyncio.Queue[bytes | grpc.aio.AioRpcError | None] = asyncio.Queue()
        self._opened = False
        self.ended = False
        """For the caller."""
        self.closed = False
        """For the service: nothing more goes out on it."""
        self.requests: list[bytes] = []
        """What the caller has written."""

    async def write(self, request: Any) -> None:
        if self.ended:
            raise asyncio.InvalidStateError("the stream has ended")
        await asyncio.sleep(0)
        if not self._opened:
            self._opened = True
            self._open(self._serializer(request))

    def _open(self, request: bytes) -> None:
        self.requests.append(request)
        fate, place = self._wire.fate("StreamingPull"), self._service.place
        if fate.request is not None and not fate.fails:
            place.later(fate.request, self._start)
        else:
            place.later(SILENT_SECONDS if fate.answer is None else fate.answer, self._end, "it cannot be reached")

    def _start(self) -> None:
        if not self.closed:
            try:
                self._service.stream(self._name, self)
            except Status as status:
                self._over(failure(status.code, status.details))

    async def read(self) -> Any:
        got = await self._arrived.get()
        if got is None:
            return grpc.aio.EOF
        if isinstance(got, grpc.aio.AioRpcError):
            raise got
        return self._deserializer(got)

    async def done_writing(self) -> None:
        """The service ends its side too, in order."""
        if not self.ended:
            self._service.place.later(0.0, self._over, None)

    def cancel(self) -> None:
        self.ended = True
        self._service.place.later(0.0, self._cancelled)

    def _cancelled(self) -> None:
        self.closed = True

    # The service's end.

    @property
    def open(self) -> bool:
        return not self.closed and self._wire.alive

    def push(self, answers: Sequence[bytes], seconds: float = 0.0) -> None:
        """Send ``answers``, which may get lost with the stream."""
        if self._wire.away():
            self._break(SILENT_SECONDS * self._service.place.chance.random())
        elif self._wire.tears():
            self._break(0.0)
        else:
            for answer in answers:
                self._service.place.later(seconds, self._deliver, answer)

    def _break(self, seconds: float) -> None:
        """It is gone for the service; the caller finds out after ``seconds``."""
        self.closed = True
        self._service.place.later(seconds, self._end, "the stream is broken")

    def _deliver(self, answer: bytes) -> None:
        if not self.ended and not self.closed:
            self._arrived.put_nowait(answer)

    def _end(self, why: str) -> None:
        self._over(failure(Code.UNAVAILABLE, f"simulated: {why}"))

    def _over(self, error: grpc.aio.AioRpcError | None) -> None:
        self.closed = True
        if not self.ended:
            self.ended = True
            self._arrived.put_nowait(error)
