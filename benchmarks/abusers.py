"""Clients that mean harm, in a process of their own: ``python -m benchmarks.abusers PORT ATTACK OUTCOME``, two files.

Of their own, so that what they cost is no wait of the honest client, whose process does nothing else.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.load_http import HOST

OPENING = 64
"""Connections being made at once."""
LATE_SECONDS = 30.0
"""Whom the server has not ended by then, after the others, it does not end."""
_LOOK_SECONDS = 0.25
_HEAD_BYTES = 2**16
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)")
_CLOSE = b"\r\nconnection: close\r\n"
_NARROW = 1
"""Bytes of a receive buffer, which the kernel rounds up to the least that it has."""


class Attack(Struct, frozen=True):
    """What each of ``count`` clients does."""

    count: int
    first: list[bytes]
    """What is sent at once; the clients take turns with these."""
    then: bytes = b""
    """And when something came back."""
    drip: bytes = b""
    """And from then on, each half second, until the server ends the connection."""
    deaf_seconds: float = 0
    """For so long nothing is read, and the kernel keeps next to nothing."""
    seconds: float = 0
    """A flood: who was answered, or cut off, comes again on a new connection until then. 0: everybody comes once."""
    keeps: bool = False
    """A flood on connections that stay: the next request as soon as the last was answered in full."""
    user: bool = False
    """By users whose requests are all valid: the honest client's sends have a goal of their own beside it."""
    stays: bool = True
    """Whoever comes once stays until the server ends it; else until it was answered."""


class Outcome(Struct):
    """What became of them."""

    connections: int = 0
    held: int = 0
    """Of those who come once: open when all had come and what they send first was sent."""
    left: int = 0
    """Of those: still open at the end, since the server never ended them."""
    answers: dict[str, int] = {}
    """By status; ``none`` where the server ended the connection without any."""


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, attack: Attack, number: int) -> None:
        self.status = "none"
        self.ended = asyncio.get_running_loop().create_future()
        """Done when the server has closed, or answered a flood."""
        self.closed = False
        self._attack = attack
        self._number = number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def begin(self) -> None:
        """uvloop begins to read after ``connection_made``, so a deaf client is made here."""
        if self._attack.deaf_seconds:
            self.transport.pause_reading()
        self.transport.write(self._attack.first[self._number % len(self._attack.first)])

    def data_received(self, data: bytes) -> None:
        if self.status == "none":
            self.status = data[9:12].decode("ascii", "replace")
            self.transport.write(self._attack.then)
        if not self._attack.stays:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.closed = True
        self._end()

    def drip(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self._attack.drip)

    def hear(self) -> None:
        """Read after all, what there is: only so whoever was deaf learns that the server has ended the connection."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _come(port: int, attack: Attack, number: int) -> _Client:
    plain = socket.socket()
    if attack.deaf_seconds:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
    plain.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(plain, (HOST, port))
    _, client = await loop.create_connection(lambda: _Client(attack, number), sock=plain)
    client.begin()
    return client


async def _flood(port: int, attack: Attack) -> Outcome:
    """Each comes again as soon as it was served."""
    until, answers = time.monotonic() + attack.seconds, Counter[str]()

    async def one(number: int) -> None:
        while time.monotonic() < until:
            client = await _come(port, attack, number)
            await client.ended
            answers[client.status] += 1
            client.transport.abort()  # leaves no port behind that must wait

    await asyncio.gather(*map(one, range(attack.count)))
    return Outcome(answers.total(), answers=dict(answers))


async def _insist(port: int, attack: Attack) -> Outcome:
    """Each asks again on the connection that it has, and makes another where the server ends it."""
    until, answers, came = time.monotonic() + attack.seconds, Counter[str](), 0

    async def one(number: int) -> None:
        nonlocal came
        request = attack.first[number % len(attack.first)]
        while time.monotonic() < until:
            reader, writer = await asyncio.open_connection(HOST, port, limit=_HEAD_BYTES)
            came += 1
            try:
                closes = False
                while not closes and time.monotonic() < until:
                    writer.write(request)
                    status, closes = await _answer(reader)
                    answers[status] += 1
            except (OSError, asyncio.IncompleteReadError):
                answers["none"] += 1
            finally:
                writer.transport.abort()

    await asyncio.gather(*map(one, range(attack.count)))
    return Outcome(came, answers=dict(answers))


async def _answer(reader: asyncio.StreamReader) -> tuple[str, bool]:
    """The status of an answer that has come in full, and whether it is the last one."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is not None:
        await reader.readexactly(int(length[1]))
    return head[9:12].decode("ascii", "replace"), _CLOSE in head


async def _besiege(port: int, attack: Attack) -> Outcome:
    """Everybody comes once and stays."""
    clients: list[_Client] = []
    for start in range(0, attack.count, OPENING):
        numbers = range(start, min(start + OPENING, attack.count))
        clients += await asyncio.gather(*(_come(port, attack, number) for number in numbers))
    await asyncio.sleep(0.5)
    held = sum(not client.closed for client in clients)
    dripping = asyncio.create_task(_drip(clients)) if attack.drip else None
    if attack.deaf_seconds:
        await asyncio.sleep(attack.deaf_seconds)
        for client in clients:
            client.hear()
    left = await _leave(clients)
    if dripping is not None:
        dripping.cancel()
    return Outcome(attack.count, held, left, dict(Counter(client.status for client in clients)))


async def _drip(clients: Sequence[_Client]) -> None:
    while True:
        await asyncio.sleep(0.5)
        for client in clients:
            client.drip()


async def _leave(clients: Sequence[_Client]) -> int:
    """Return when the server has ended all, or none any more; how many it left."""
    waiting, last = len(clients), time.monotonic()
    while waiting and time.monotonic() < last + LATE_SECONDS:
        await asyncio.sleep(_LOOK_SECONDS)
        if (now := sum(not client.closed for client in clients)) < waiting:
            waiting, last = now, time.monotonic()
    for client in clients:
        client.transport.abort()
    return waiting


def main(arguments: Sequence[str]) -> None:
    """Attack; the outcome is a file."""
    port, attack, outcome = int(arguments[0]), Path(arguments[1]), Path(arguments[2])
    orders = msgspec.json.decode(attack.read_bytes(), type=Attack)
    attack_of = _insist if orders.keeps else _flood if orders.seconds else _besiege
    found = uvloop.run(attack_of(port, orders))
    outcome.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main(sys.argv[1:])
