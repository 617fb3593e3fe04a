"""The simulated Redis answers as the real one does: the same commands to both, chosen at random, equal answers."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import NoScriptError, ResponseError

from tests.sim.vendors.redis_server import Redis
from tests.sim.vendors.wires import Place
from tests.sim.vendors.wiring import REDIS_HOST, simulated_redis
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
KINDS = ("string", "hash", "list", "zset")
FIELDS = ("a", "b", "c", "10", b"\x00\xff\r\n")
NUMBERS = ("0", "1", "-3", "2.5", "1790000000000001", "-7209999999999999", "9000000000000000")
BOUNDS = (*NUMBERS, "(1", "(0", "-inf", "+inf", "(-7209999999999999")
RANGES = ((0, -1), (0, 0), (1, 2), (-2, -1), (5, 9), (-9, 1))
LAYOUTS = ((">BI7", 2), (">I7I7", 2), (">I8", 1))

Pair = tuple[Any, Any]
"""Clients of the real one and of the simulated one; their types know no commands as they are."""


@pytest.fixture
def simulated() -> Iterator[None]:
    with simulated_redis(Redis(Place(random.Random(1)))):
        yield


@pytest.fixture
async def both(anyio_backend: str, redis: Server, simulated: None) -> AsyncIterator[Pair]:
    async with (
        Client.from_url(f"redis://{redis.address}", protocol=2) as real,
        Client(host=REDIS_HOST, protocol=2) as made,
    ):
        yield real, made


async def answer(client: Any, *command: Any) -> Any:
    try:
        return await client.execute_command(*command)
    except ResponseError as error:
        first = str(error).split()[0]  # the library leaves out ERR; the rest is for people
        return first if first.isupper() else "ERR"


def commands(chance: random.Random, prefix: str) -> Iterator[tuple[Any, ...]]:
    """Without end."""

    def key() -> str:
        # Now and then a key of another kind.
        return f"{prefix}:{chance.choice(KINDS)}"

    while True:
        own = {kind: f"{prefix}:{kind}" if chance.random() < 0.95 else key() for kind in KINDS}
        text, hash_, list_, zset = own.values()
        field, other, number = chance.choice(FIELDS), chance.choice(FIELDS), chance.choice(NUMBERS)
        limit = chance.choice(((), ("LIMIT", 0, 1), ("LIMIT", 1, 2), ("LIMIT", 0, -1)))
        scores = chance.choice(((), ("WITHSCORES",)))
        low, high = chance.choice(BOUNDS), chance.choice(BOUNDS)
        yield chance.choice(
            (
                ("SET", text, field, *chance.choice(((), ("NX",), ("NX", "EX", 100)))),
                ("GET", text),
                ("DEL", key(), key()),
                ("EXISTS", *(f"{prefix}:{kind}" for kind in KINDS)),
                ("HSET", hash_, field, number, other, field),
                ("HGET", hash_, field),
                ("HMGET", hash_, field, other),
                ("HDEL", hash_, field, other),
                ("HEXISTS", hash_, field),
                ("HGETALL", hash_),
                ("HVALS", hash_),
                ("HSTRLEN", hash_, field),
                ("HINCRBY", hash_, "counter", chance.choice(("1", "-5"))),
                ("HSCAN", hash_, 0, "COUNT", 10),
                ("PEXPIRE", hash_, 1_000_000),
                ("RPUSH", list_, field, other),
                ("LINDEX", list_, chance.choice((0, 1, -1, 7))),
                ("LPOP", list_),
                ("ZADD", zset, *chance.choice(((), ("LT",))), number, field, chance.choice(NUMBERS), other),
                ("ZADD", zset, number, field),
                ("ZREM", zset, field),
                ("ZCARD", zset),
                ("ZCOUNT", zset, low, high),
                ("ZSCORE", zset, field),
                ("ZRANGE", zset, *chance.choice(RANGES), *scores),
                ("ZRANGEBYSCORE", zset, low, high, *scores, *limit),
                ("ZREVRANGEBYSCORE", zset, high, low, *scores, *limit),
            )
        )


@pytest.mark.parametrize("seed", range(5))
async def test_commands(both: Pair, seed: int) -> None:
    """Also by way of a script, which sees replies as Lua has them."""
    chance, prefix = random.Random(seed), f"alike-{uuid.uuid4().hex}"
    script = "return redis.call(unpack(ARGV))"
    chosen = commands(chance, prefix)
    for _ in range(1500):
        command = next(chosen)
        if chance.random() < 0.5:
            command = ("EVAL", script, 0, *command)
        assert await answer(both[1], *command) == await answer(both[0], *command), command


@pytest.mark.parametrize(
    "script",
    [
        "return {1, 2.9, 'x', true, false, 3, nil, 4}",
        "return {{}, {1, {2}}, redis.call('GET', KEYS[1]) or 'missing'}",
        "return tonumber(ARGV[1]) - 9e15",
        "return redis.call('ZADD', KEYS[1], tonumber(ARGV[1]) - 9e15, 'a') .. redis.call('ZSCORE', KEYS[1], 'a')",
        "return string.format('%.0f', ARGV[1] - 9e15)",
        "return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') ~= nil",
        "return redis.call('SET', KEYS[2], 'x', 'NX', 'EX', 5) and 'set' or 'not set'",
        "return redis.call('HGET', KEYS[1], 'x')",
        "return redis.call('NOSUCH')",
        "return nil .. 'x'",
        "return redis.call('PUBLISH', 'nobody hears', 'x')",
        "#!lua flags=allow-oom\nreturn 'with flags'",
    ],
)
async def test_scripts(both: Pair, script: str) -> None:
    prefix = f"alike-{uuid.uuid4().hex}"
    command = ("EVAL", script, 2, f"{prefix}:1", f"{prefix}:2", 1_790_000_000_000_001)
    for _ in range(2):
        assert await answer(both[1], *command) == await answer(both[0], *command)


@pytest.mark.parametrize(("layout", "count"), LAYOUTS)
async def test_struct(both: Pair, layout: str, count: int) -> None:
    pack = f"local text = struct.pack('{layout}', NUMBERS)"
    script = f"{pack}; return {{text, struct.unpack('{layout}', text .. text, 2)}}"
    chance = random.Random(1)
    for _ in range(50):
        numbers = [chance.choice((0, 1, 255, 1_790_000_000_000_001, 2**53 - 1)) for _ in range(count)]
        command = ("EVAL", script.replace("NUMBERS", ", ".join(map(str, numbers))), 0)
        assert await answer(both[1], *command) == await answer(both[0], *command), numbers


async def test_a_script_is_known_once_it_was_sent(both: Pair) -> None:
    text = f"return '{uuid.uuid4().hex}'"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    for client in both:
        with pytest.raises(NoScriptError):
            await client.execute_command("EVALSHA", digest, 0)
        await answer(client, "EVAL", text, 0)
        assert await answer(client, "EVALSHA", digest, 0) == text[8:-1].encode()


async def test_a_key_that_has_run_out_is_gone(both: Pair) -> None:
    key = f"alike-{uuid.uuid4().hex}"
    for client in both:
        await client.execute_command("HSET", key, "a", "1")
        assert await client.execute_command("PEXPIRE", key, 0) == 1
        assert await client.execute_command("EXISTS", key) == 0
        assert await client.execute_command("HGET", key, "a") is None
        assert await client.execute_command("PEXPIRE", key, 10) == 0
