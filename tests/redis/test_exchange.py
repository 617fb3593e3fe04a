"""The exchange: whose commands travel together, and what each caller gets of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import hiredis
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from router.backends.redis import exchange
from router.backends.redis.exchange import Exchange
from router.backends.redis.masters import Masters
from tests.support.redis_servers import client
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
SECONDS = 5.0


@asynccontextmanager
async def exchanging(port: int, most: int = 4, seconds: float = SECONDS) -> AsyncIterator[Exchange]:
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    masters = Masters()
    options: Any = {"retry": retry, "max_connections": most + 1, "redis_connect_func": masters.meet}
    redis = Redis(host="127.0.0.1", port=port, protocol=2, **options)
    made = Exchange(redis.connection_pool, most, seconds, masters, left=AsyncMock())
    try:
        await made.send([("PING",)])  # the connection is there
        yield made
    finally:
        await made.aclose()
        await redis.aclose()


def reads(server: Server) -> int:
    """How often the server has read from a client, this time included."""
    found: int = client(server).info("stats")["total_reads_processed"]
    return found


async def reads_of(server: Server, work: Callable[[], Any]) -> int:
    idle = reads(server)
    idle, before = reads(server) - idle, reads(server)
    await work()
    return reads(server) - before - idle


async def echoes(made: Exchange, *texts: bytes) -> None:
    assert await made.send([("ECHO", text) for text in texts]) == list(texts)


async def test_callers_of_one_turn_share_a_round_trip_and_get_their_own_replies(own_redis: Server) -> None:
    async with exchanging(own_redis.port) as made:

        async def many() -> None:
            await asyncio.gather(*(echoes(made, b"%d" % number, b"%d again" % number) for number in range(50)))

        assert await reads_of(own_redis, many) == 1


async def test_a_long_batch_goes_alone(own_redis: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "JOINED_BYTES", 100)
    async with exchanging(own_redis.port, most=1) as made:

        async def three() -> None:
            await asyncio.gather(echoes(made, b"a"), echoes(made, b"b" * 100), echoes(made, b"c"))

        assert await reads_of(own_redis, three) == 3


async def test_a_refusal_is_one_callers_own(own_redis: Server) -> None:
    async with exchanging(own_redis.port) as made:
        (refused, told), _ = await asyncio.gather(made.send([("NOTHING",), ("ECHO", b"on")]), echoes(made, b"x"))
        assert isinstance(refused, ResponseError)
        assert told == b"on"


async def test_who_gives_up_takes_nothing_from_the_others(own_redis: Server) -> None:
    """Before it is sent it is not sent; afterwards its replies are read and belong to nobody."""
    async with exchanging(own_redis.port, most=1) as made:
        for turns in range(8):
            given_up = asyncio.create_task(made.send([("INCR", "count")]))
            others = [asyncio.create_task(echoes(made, b"%d" % number)) for number in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.gather(*others)
            await echoes(made, b"next")
        (count,) = await made.send([("GET", "count")])
        assert int(count or 0) <= 6, "the first two were given up before anything was sent"


class Breaking:
    """A server that answers so many commands on its first connection, then closes it; the others it answers in full."""

    def __init__(self, answered: int) -> None:
        self.heard: list[list[bytes]] = []
        self._left = answered

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser, heard = hiredis.Reader(), list[bytes]()
        self.heard.append(heard)
        while data := await reader.read(65536):
            parser.feed(data)
            while isinstance(command := parser.gets(), list):
                if command[0] != b"ECHO":
                    writer.write(b"+OK\r\n")
                    continue
                heard.append(command[1])
                if len(self.heard) == 1 and not self._left:
                    await writer.drain()
                    writer.close()
                    return
                self._left -= 1
                writer.write(b"$%d\r\n%b\r\n" % (len(command[1]), command[1]))
        writer.close()


@asynccontextmanager
async def listening(serve: Breaking) -> AsyncIterator[int]:
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_only_what_has_no_replies_is_sent_again(anyio_backend: str) -> None:
    """Whoever has got them goes on with what they say: they must not be made untrue behind their back."""
    del anyio_backend
    breaking = Breaking(answered=3)
    async with listening(breaking) as port, exchanging(port) as made:
        await asyncio.gather(echoes(made, b"a", b"b"), echoes(made, b"c", b"d"), echoes(made, b"e"))
    assert breaking.heard == [[b"a", b"b", b"c", b"d"], [b"c", b"d", b"e"]]


async def test_who_waits_when_it_closes_is_told(own_redis: Server) -> None:
    async with exchanging(own_redis.port, most=1) as made:
        own_redis.freeze()
        waiting: Sequence[asyncio.Task[Any]] = [asyncio.create_task(made.send([("PING",)])) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = [*waiting, asyncio.create_task(made.send([("PING",)]))]
        await asyncio.sleep(0)
        await made.aclose()
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        own_redis.thaw()
    assert [type(error) for error in failed] == [RedisConnectionError] * 4


async def test_whose_batch_was_about_to_be_sent_when_it_closes_is_told(own_redis: Server) -> None:
    """In whichever turn of the event loop, also before the task that sends has begun."""
    for turns in range(1, 8):
        async with exchanging(own_redis.port) as made, asyncio.timeout(SECONDS):
            asking = asyncio.create_task(made.send([("PING",)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            await made.aclose()
            answers = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(answers[0], RedisConnectionError) or answers[0] == [b"PONG"]
