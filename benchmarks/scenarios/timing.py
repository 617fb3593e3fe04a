"""What time tells a sender about a recipient: the same sends to recipients in different states, and own mail beside."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from benchmarks.arrivals import arrivals
from benchmarks.figures import Figure
from benchmarks.load import PAGE, background
from benchmarks.load_http import ANSWER_SECONDS, HOST, Http, LoadError, ack, connections, fetch, post
from benchmarks.load_sockets import nothing, sockets
from benchmarks.mail import batch, envelope, user
from benchmarks.servers import Bench, Server
from router.bench.latencies import Latencies

NAME = "timing"
SENDS, BURSTS, PROBES = 1500, 90, 150
BURST = 40
_OK = b"HTTP/1.1 202 "


async def run(bench: Bench) -> list[Figure]:
    """One recipient who reads, one who is connected and silent, one who is offline, in turns."""
    with bench.server("router") as server:
        async with recipients(server) as people, connections(server.port, 1) as (http,):
            single = await alone(server, http, people, bench.count(SENDS))
            burst = await at_once(server, people, bench.count(BURSTS))
    with bench.data_dir() as data:
        arrived = await arrivals(data, bench.count(PROBES))
    figures = [figure(f"a send to {who}", latencies) for who, latencies in single.items()]
    figures += [figure(f"{BURST} pipelined sends to {who}", latencies) for who, latencies in burst.items()]
    return figures + [
        figure(f"own mail to somebody {own}, beside somebody {other}", latencies)
        for (own, other), latencies in arrived.items()
    ]


@contextlib.asynccontextmanager
async def recipients(server: Server) -> AsyncIterator[dict[str, str]]:
    """Their states, and who is in each."""
    reads, silent, offline = (user(name, 0) for name in ("reads", "silent", "offline"))
    poked = asyncio.Event()
    wanted = [(server.token(reads), poked.set), (server.token(silent), nothing)]
    async with (
        connections(server.port, 1) as (http,),
        sockets(server.port, wanted),
        background([read(http, server.token(reads), poked)]),
    ):
        yield {"somebody who reads": reads, "somebody silent": silent, "somebody offline": offline}


async def read(http: Http, token: str, poked: asyncio.Event) -> None:
    """Fetch and acknowledge at each poke, until nothing is left."""
    while True:
        await poked.wait()
        poked.clear()
        while messages := batch(await http.request(fetch(token, PAGE), 200)).messages:
            await http.request(ack(token, [message.id for message in messages]), 204)


def figure(what: str, latencies: Latencies) -> Figure:
    least, p50, p90, most = (latencies.percentile_ms(percent) for percent in (0, 50, 90, 100))
    return Figure(NAME, f"{what}, p50", [p50], "ms", note=f"p90 {p90:.1f} ms; {least:.1f} to {most:.1f} ms in all")


async def alone(server: Server, http: Http, people: dict[str, str], count: int) -> dict[str, Latencies]:
    """One send after another, to each in turn."""
    taken = {who: Latencies() for who in people}
    token = server.token(user("curious", 0))
    for who, recipient in list(people.items()) * (count // len(people)):
        since = time.perf_counter()
        await http.request(post("/api/send", token, envelope(recipient)), 202)
        taken[who].add(time.perf_counter() - since)
    return taken


async def at_once(server: Server, people: dict[str, str], count: int) -> dict[str, Latencies]:
    """So many sends to one of them in one write, then to the next: how long all answers take."""
    taken = {who: Latencies() for who in people}
    token = server.token(user("curious", 0))
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        for who, recipient in list(people.items()) * (count // len(people)):
            since = time.perf_counter()
            writer.write(post("/api/send", token, envelope(recipient)) * BURST)
            await answered(reader, BURST)
            taken[who].add(time.perf_counter() - since)
    finally:
        writer.close()
        await writer.wait_closed()
    return taken


async def answered(reader: asyncio.StreamReader, count: int) -> None:
    """Return when so many answers have come, each a 202 with an id."""
    came = b""
    async with asyncio.timeout(ANSWER_SECONDS):
        while came.count(_OK) < count or not came.endswith(b'"}'):
            if not (data := await reader.read(65536)):
                raise LoadError("the server closed a connection")
            came += data
