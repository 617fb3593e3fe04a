"""What a dishonest client costs: memory for each of its connections, and the wait of an honest one meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.abusers import Attack, Outcome
from benchmarks.attacks import READERS, attacks, large, users
from benchmarks.figures import Figure, at_most
from benchmarks.load import settled
from benchmarks.load_http import LoadError, connections, fetch, get, post
from benchmarks.mail import user
from benchmarks.others import somebody_else
from benchmarks.servers import Bench, Process, Server, spawn
from router.bench.latencies import Latencies
from router.config.sections import Limits

NAME = "abuse"
USERS = "abuse-users"
"""The part of it that is done with a valid token, by valid requests."""
SETTINGS = {
    "ROUTER_SERVER__CLIENT_SECONDS": "6",
    "ROUTER_SERVER__PING_SECONDS": "6",
    "ROUTER_LIMITS__SEND_RATE": str(Limits().send_rate),
    "ROUTER_LIMITS__PAIR_RATE": str(Limits().pair_rate),
    "ROUTER_LIMITS__OUTBOUND_BYTES": str(Limits().outbound_bytes),
    "ROUTER_LIMITS__WORK_RATE": str(Limits().work_rate),
}
"""The limits are those that everybody has. The spans are long enough for thousands to come while others use the
machine; the defaults, 20 s, would only take longer."""
ALONE_SECONDS = 1.5
PAUSE_SECONDS = 0.02
"""So that the honest client sends no more than a client may."""
MOST_SECONDS = 120.0
LOOK_SECONDS = 0.01
P90_MS = 25
"""Of an honest send beside a user who asks for all that one may."""
MOST_MIB = 256
"""That the server may have in memory, all in all."""
_FULL = 40
_LARGE = 150_000
_COUNTED = re.compile(
    r'^router_(?:requests_refused|clients_cut_off)_total\{reason="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE
)


class Seen(Struct):
    """One kind of abuse."""

    outcome: Outcome
    before: int
    """Resident bytes of the server before the abuse."""
    most: int
    """Resident bytes of the server at most, from its start to the end of the abuse."""
    alone: Latencies
    """Each request of the honest client before the abuse, and meanwhile; and each first one on a new connection."""
    meanwhile: Latencies
    sends_alone: Latencies
    sends_meanwhile: Latencies
    newcomer: Latencies
    reasons: dict[str, float]
    """Of refusals and cuts, as the server counts them."""


async def run(bench: Bench) -> list[Figure]:
    """A fresh server for each."""
    strangers = await _all(bench, attacks(bench.token, bench.directory, bench.count))
    return [*strangers, *await users_only(bench)]


async def users_only(bench: Bench) -> list[Figure]:
    """The same for users whose requests are valid."""
    return await _all(bench, users(bench.token, bench.count))


async def _all(bench: Bench, found_attacks: Iterable[tuple[str, Attack]]) -> list[Figure]:
    rows: list[Figure] = []
    for name, attack in found_attacks:
        sys.stderr.write(f"  {name} ...\n")
        found = _rows(name, attack, await _under(bench, attack))
        rows += found
        sys.stderr.writelines(f"    {row.what}: {row.value:.1f} {row.unit} ({row.note})\n" for row in found)
    return rows


def _rows(name: str, attack: Attack, seen: Seen) -> list[Figure]:
    outcome = seen.outcome
    status = ", ".join(f"{count:,} times {answer}" for answer, count in sorted(outcome.answers.items()))
    counted = ", ".join(f"{count:,.0f} {reason}" for reason, count in sorted(seen.reasons.items()))
    how = (
        f"{outcome.connections:,} came, {attack.count} at once" if attack.seconds else f"{outcome.held:,} held at once"
    )
    left = f"; {outcome.left:,} NEVER ENDED" if outcome.left else ""
    alone = f"without abuse median {seen.alone.p50_ms:.1f} ms, longest {seen.alone.max_ms:.0f} ms"
    wait = f"median {seen.meanwhile.p50_ms:.1f} ms of {len(seen.meanwhile):,} requests; {alone}; newcomer {_new(seen)}"
    each = (seen.most - seen.before) / attack.count / 1000
    memory = f"{seen.before / 2**20:.0f} MiB before, {each:,.1f} KB more for each; {how}{left}"
    sends = [_sends(f"{attack.count:,} {name}", seen)] if attack.user else []
    return [
        *sends,
        Figure(NAME, f"{attack.count:,} {name}: memory", [seen.most / 2**20], "MiB", at_most(MOST_MIB), memory),
        Figure(NAME, f"{attack.count:,} {name}: longest wait", [seen.meanwhile.max_ms], "ms", at_most(1000), wait),
        Figure(NAME, f"{attack.count:,} {name}: left open", [outcome.left], "", at_most(0), f"{status}; {counted}"),
    ]


def _sends(what: str, seen: Seen) -> Figure:
    p90, alone = seen.sends_meanwhile.percentile_ms(90), seen.sends_alone.percentile_ms(90)
    note = f"of {len(seen.sends_meanwhile):,}; without abuse {alone:.1f} ms"
    return Figure(NAME, f"{what}: an honest send, p90", [p90], "ms", at_most(P90_MS), note)


def _new(seen: Seen) -> str:
    return f"median {seen.newcomer.p50_ms:.1f} ms, longest {seen.newcomer.max_ms:.0f} ms"


async def _under(bench: Bench, attack: Attack) -> Seen:
    with bench.server("router", SETTINGS) as server:
        if attack.deaf_seconds or attack.user:
            await _fill(server)
        await settled(server)
        async with somebody_else(server, PAUSE_SECONDS) as honest, _newcomer(server) as newcomer:
            await asyncio.sleep(ALONE_SECONDS)
            alone, honest.waits = honest.waits, Latencies()
            sends_alone, honest.sends = honest.sends, Latencies()
            newcomer.waits = Latencies()
            before = server.memory()
            outcome, most = await _attacked(server, attack)
            meanwhile, sends, fresh = honest.waits, honest.sends, newcomer.waits
        return Seen(outcome, before, most, alone, meanwhile, sends_alone, sends, fresh, await _reasons(server))


async def _attacked(server: Server, attack: Attack) -> tuple[Outcome, int]:
    """The outcome, and the most memory that the server has had by then."""
    with _abusers(server, attack) as (process, outcome):
        deadline = time.monotonic() + MOST_SECONDS
        while process.running:
            if time.monotonic() > deadline:
                raise LoadError(f"the abuse has not ended after {MOST_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        process.finish()
        return msgspec.json.decode(outcome.read_bytes(), type=Outcome), server.most_memory()


@contextlib.contextmanager
def _abusers(server: Server, attack: Attack) -> Iterator[tuple[Process, Path]]:
    orders, outcome = server.log.with_name("attack"), server.log.with_name("outcome")
    orders.write_bytes(msgspec.json.encode(attack))
    command = [sys.executable, "-m", "benchmarks.abusers", str(server.port), str(orders), str(outcome)]
    process = Process(spawn(command, server.environment, server.log))
    try:
        yield process, outcome
    finally:
        process.end(gently=False)


class _Newcomer:
    """An honest person who makes a new connection for each fetch."""

    def __init__(self) -> None:
        self.waits = Latencies()

    async def run(self, server: Server) -> None:
        """Until cancelled."""
        request = fetch(server.token(user("newcomer", 0)), 50)
        while True:
            started = time.perf_counter()
            async with connections(server.port, 1) as (connection,):
                await connection.request(request, 200)
            self.waits.add(time.perf_counter() - started)
            await asyncio.sleep(LOOK_SECONDS)


@contextlib.asynccontextmanager
async def _newcomer(server: Server) -> AsyncIterator[_Newcomer]:
    newcomer = _Newcomer()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(newcomer.run(server))
        yield newcomer
        task.cancel()


async def _fill(server: Server) -> None:
    """A mailbox whose first page is as long as one may be."""
    async with connections(server.port, 1) as (connection,):
        for _ in range(_FULL):
            await connection.request(post("/api/send", server.token(user("sender", 1)), large(READERS, _LARGE)), 202)


async def _reasons(server: Server) -> dict[str, float]:
    async with connections(server.admin_port, 1) as (connection,):
        text = (await connection.request(get("/metrics", ""), 200)).decode()
    return {reason: float(count) for reason, count in _COUNTED.findall(text) if float(count)}
