"""One Redis: connections in memory, over which the real client speaks the real protocol with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis

from tests.sim.vendors import redis_lua as lua
from tests.sim.vendors.redis_data import OK, Data, Error, Reply, Simple, perform
from tests.sim.vendors.wires import Place, Wire

VERSION = "7.4.0"
START = 1_790_000_000
"""Seconds since 1970 at which each run begins."""
_WRITES = (b"SET", b"HSET", b"ZADD", b"RPUSH")
"""Of what the router sends, these are refused when the memory is full."""


class Redis:
    """The server. What it is asked is done at once, one command after another."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.data = Data(place.now)
        self.settings = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always", "save": ""}
        self.full = False
        """Whether it refuses to take more."""
        self.loses: Callable[[str], int] = lambda channel: 1
        """How many copies of a message arrive at the subscribers of a channel."""
        self._scripts: dict[bytes, lua.Script] = {}
        self._lines: dict[RedisLine, None] = {}
        self._all: list[RedisLine] = []
        self._run = self._before = ""
        self._runs = 0
        self.up = True
        self.ran: Callable[[], None] = lambda: None
        """Called after each script."""
        self._held: list[Callable[[], None]] | None = None
        """What it has been sent since it froze."""
        self._start()

    def _start(self) -> None:
        self._runs += 1
        self._run = f"{self.place.chance.getrandbits(64):016x}{self._runs:024x}"
        self._scripts.clear()
        self.up = True

    # Its life.

    def stop(self) -> None:
        """It dies, and with it its connections and what it knows of scripts. What it has answered is on its disk."""
        self.up = False
        for line in list(self._lines):
            line.break_off()

    def start(self) -> None:
        """Another run of it begins, or a replica that has all of it takes over."""
        if not self.up:
            self._start()

    def forget(self) -> None:
        """It loses everything and starts anew."""
        self.stop()
        self.data.clear()
        self.start()

    def replaced(self) -> Redis:
        """It freezes, and a replica that has all of it takes over its name. The one that is frozen is returned: it has
        all connections, and goes on as the master when it thaws."""
        old = Redis(self.place)
        old.data, old.settings, old.loses, old._run = self.data.copied(), self.settings, self.loses, self._run
        old._scripts, old._lines, self._lines = dict(self._scripts), self._lines, {}
        old._held = []
        for line in old._lines:
            line.server = old
        self._before = self._run
        self._start()
        return old

    def thaw(self) -> None:
        """It does what it was sent meanwhile, in the order in which that came."""
        held, self._held = self._held or [], None
        for arrival in held:
            arrival()

    def takes(self, arrival: Callable[[], None]) -> bool:
        """Whether it does not stand still; else ``arrival`` comes later."""
        if self._held is not None:
            self._held.append(arrival)
        return self._held is None

    def connected(self, line: RedisLine) -> None:
        self._lines[line] = None
        self._all.append(line)

    def abandon(self) -> None:
        """The run is over: nobody closes what is still open."""
        for line in self._all:
            line.abandon()

    def left(self, line: RedisLine) -> None:
        self._lines.pop(line, None)

    # What it is asked.

    def ask(self, line: RedisLine, command: Sequence[bytes]) -> Reply | Error:
        """The reply to one command."""
        name, arguments = command[0].upper(), command[1:]
        try:
            own = self._OWN.get(name)
            if own is not None:
                return own(self, line, arguments)
            return self._perform(name, arguments)
        except Error as error:
            return error

    def _perform(self, name: bytes, arguments: Sequence[bytes]) -> Reply:
        if name == b"PUBLISH":
            return self._publish(*arguments)
        if name == b"INFO":
            return self._info()
        return perform(self.data, name, arguments)

    def _ping(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        if line.channels:
            return [b"pong", arguments[0] if arguments else b""]
        return arguments[0] if arguments else Simple(b"PONG")

    def _time(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        del line, arguments
        seconds, microseconds = divmod(int((START + self.place.now()) * 1e6), 10**6)
        return [b"%d" % seconds, b"%d" % microseconds]

    def _evalsha(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        script = self._scripts.get(arguments[0])
        if script is None:
            raise Error("NOSCRIPT No matching script. Please use EVAL.")
        return self._run_script(script, arguments[1:])

    def _eval(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        script = self._scripts[lua.digest(arguments[0])] = lua.compiled(arguments[0])
        return self._run_script(script, arguments[1:])

    def _run_script(self, script: lua.Script, arguments: Sequence[bytes]) -> Reply:
        if self.full and not script.allows_oom:
            raise Error("OOM command not allowed when used memory > 'maxmemory'.")
        count = int(arguments[0])
        reply = lua.run(script, arguments[1 : 1 + count], arguments[1 + count :], self._perform)
        self.ran()
        return reply

    def _info(self) -> bytes:
        lines = {
            "redis_version": VERSION, "redis_mode": "standalone", "run_id": self._run, "role": "master",
            "master_replid": self._run, "master_replid2": self._before, "connected_slaves": 0,
            "maxmemory": 0, "used_memory": 1, "maxmemory_policy": "noeviction",
        }  # fmt: skip
        return "".join(f"{name}:{value}\r\n" for name, value in lines.items()).encode()

    def _config(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        names = [name.decode() for name in arguments[1:]]
        return [text.encode() for name in names if name in self.settings for text in (name, self.settings[name])]

    def _said(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        return OK

    def _subscribe(self, line: RedisLine, arguments: Sequence[bytes]) -> Reply:
        line.channels.update(dict.fromkeys(arguments))
        return [b"subscribe", arguments[0], len(line.channels)]

    def _publish(self, channel: bytes, message: bytes) -> int:
        listeners = [line for line in self._lines if channel in line.channels]
        for _ in range(self.loses(channel.decode())):
            for line in listeners:
                line.push([b"message", channel, message])
        return len(listeners)

    _OWN = {  # noqa: RUF012 - never changed
        b"PING": _ping, b"TIME": _time, b"EVALSHA": _evalsha, b"EVAL": _eval, b"CONFIG": _config, b"CLIENT": _said,
        b"SELECT": _said, b"SUBSCRIBE": _subscribe,
    }  # fmt: skip


class RedisLine(asyncio.Transport):
    """One connection: the client's transport, and what the server knows of it."""

    def __init__(self, server: Redis, wire: Wire, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self.channels: dict[bytes, None] = {}
        self.server = server
        self._place = server.place
        self._wire = wire
        self._reader = reader
        self._requests = hiredis.Reader()
        self._next_arrival = 0.0
        self._next_answer = 0.0
        self._silent = False
        """Nothing comes through any more, and neither side has found out."""
        self._dead = False
        """The server's end is gone."""
        self._closed = False
        server.connected(self)

    # The client's end.

    def write(self, data: Any) -> None:
        if self._closed or self._silent:
            return
        fate = self._wire.fate("redis")
        if fate.request is None:
            self._silent = not fate.fails
            if fate.fails:
                self._place.later(fate.answer or 0.0, self.break_off)
            return
        # What was sent first arrives first.
        self._next_arrival = max(self._next_arrival, self._place.now() + fate.request)
        self._place.later(self._next_arrival - self._place.now(), self._arrived, bytes(data), fate)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def abandon(self) -> None:
        """Nobody uses it any more."""
        self._closed = True

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """The server finds out once it has got what was sent before, and does that."""
        if self._closed:
            return
        self._closed = True
        if self._reader.exception() is None:
            self._reader.feed_eof()
        self._place.later(max(0.0, self._next_arrival - self._place.now()), self.server.left, self)

    def abort(self) -> None:
        self.close()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    # The server's end.

    def _arrived(self, data: bytes, fate: Any) -> None:
        if self._dead or not self.server.takes(partial(self._arrived, data, fate)):
            return
        self._requests.feed(data)
        commands: list[Any] = []
        while (command := self._requests.gets()) is not False:
            commands.append(command)
        torn = fate.part < 1
        if torn:
            commands = commands[: int(len(commands) * fate.part)]
        if len(commands) > 1 and self._place.chance.random() < 0.2:
            self._one_by_one(commands, [], fate)  # it was read in pieces: others come in between
            return
        self._answer([self.server.ask(self, command) for command in commands], fate)

    def _one_by_one(self, commands: list[Any], replies: list[Reply], fate: Any) -> None:
        if self._dead:
            return
        replies.append(self.server.ask(self, commands[0]))
        if len(commands) > 1:
            self._place.later(0.0, self._one_by_one, commands[1:], replies, fate)
        else:
            self._answer(replies, fate)

    def _answer(self, replies: Sequence[Reply], fate: Any) -> None:
        if fate.answer is None:
            self._silent = True
        elif fate.fails:
            self._place.later(fate.answer, self.break_off)
        else:
            self._next_answer = max(self._next_answer, self._place.now() + fate.answer)
            data = b"".join(map(encoded, replies))
            self._place.later(self._next_answer - self._place.now(), self._deliver, data)

    def push(self, reply: Reply) -> None:
        """What the server sends unasked."""
        if self._wire.away():
            self._silent = True
        elif self._wire.tears():
            self.break_off()
        elif not self._silent:
            self._deliver(encoded(reply))

    def _deliver(self, data: bytes) -> None:
        if not self._closed and not self._silent and self._reader.exception() is None:
            self._reader.feed_data(data)

    def break_off(self) -> None:
        """Both ends know that the connection is gone."""
        self._dead = True
        self.server.left(self)
        if not self._closed and self._reader.exception() is None:
            self._closed = True
            self._reader.set_exception(ConnectionResetError("the connection is reset"))


class _Flow(asyncio.Protocol):
    """What a stream writer asks of its protocol."""

    async def _drain_helper(self) -> None:
        return

    def _get_close_waiter(self, stream: asyncio.StreamWriter) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


async def connect(server: Redis, wire: Wire) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to ``server``; raises ``ConnectionRefusedError``."""
    fate = wire.opening()
    if fate.request is None and not fate.fails:
        await asyncio.Event().wait()
    await asyncio.sleep((fate.request or 0.0) + (fate.answer or 0.0))
    if fate.fails or not server.up:
        raise ConnectionRefusedError("the connection is refused")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    line = RedisLine(server, wire, reader)
    return reader, asyncio.StreamWriter(line, _Flow(), reader, loop)


def encoded(reply: Reply | Error) -> bytes:
    """``reply`` as it goes over the line."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, Error):
        return b"-%s\r\n" % str(reply).replace("\r", " ").replace("\n", " ").encode()
    if isinstance(reply, Simple):
        return b"+%s\r\n" % bytes(reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    return b"*%d\r\n%s" % (len(reply), b"".join(map(encoded, reply)))
