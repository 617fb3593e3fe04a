"""The connection between the process that starts workers and one of them: each end asks the other, and answers."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from router.errors import Unavailable

LINE_BYTES = 16 * 1024 * 1024
"""The longest message: the metrics of a worker are some ten kilobytes."""
Answers = Mapping[str, Callable[[], Awaitable[Any]]]
"""By question. What they return is JSON."""


class _Ask(msgspec.Struct, tag="ask"):
    number: int
    what: str


class _Answer(msgspec.Struct, tag="answer"):
    number: int
    value: Any


_DECODER = msgspec.json.Decoder(_Ask | _Answer)


class Link:
    """One end, as an async context manager. State: the questions that are not answered yet."""

    def __init__(self, end: socket.socket, answers: Answers, lost: Callable[[], None]) -> None:
        """``lost`` is called once when the process at the other end has gone."""
        self._end = end
        self._answers = answers
        self._lost = lost
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] | None = {}
        """``None`` when the other end has gone."""
        self._answering: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._end, limit=LINE_BYTES)
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [self._reading, *self._answering]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._writer.close()

    async def ask(self, what: str) -> Any:
        """The answer of the other end, however long it takes; raises ``Unavailable`` if that has gone."""
        if self._asked is None:
            raise _gone()
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._send(_Ask(number, what))
            return await answer
        finally:
            if self._asked is not None:
                del self._asked[number]

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                message = _DECODER.decode(line)
                if isinstance(message, _Ask):
                    task = asyncio.create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                elif self._asked and (answer := self._asked.get(message.number)) and not answer.done():
                    answer.set_result(message.value)
        except ConnectionError:
            pass  # it was killed
        asked, self._asked = self._asked or {}, None
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(_gone())
        self._lost()

    async def _answer(self, asked: _Ask) -> None:
        self._send(_Answer(asked.number, await self._answers[asked.what]()))

    def _send(self, message: _Ask | _Answer) -> None:
        self._writer.write(msgspec.json.encode(message) + b"\n")


def _gone() -> Unavailable:
    return Unavailable("the process at the other end has gone")
