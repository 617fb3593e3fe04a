"""One run: traffic and faults for a time, then quiet, then everything is read; and what there is to judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from tests.chaos.faults import Chaos, Done
from tests.chaos.people import ABSENT_USER, DEVICES, ROAMING_USERS, SENDERS, STEADY_USERS, USERS, People
from tests.chaos.plan import make
from tests.chaos.recording import Recorder
from tests.chaos.topologies import API, SOCKETS, Cluster
from tests.sim import history as h
from tests.sim.checker import Violation
from tests.support.balancer import balancing
from tests.support.tracebacks import traceback_in

LAST_SENDS_SECONDS = 150.0
"""A sender gives up a message after two minutes."""
SETTLE_SECONDS = 150.0
"""Longer than any span after which something is due, one after the other."""
DRAIN_SECONDS = 120.0
LOOK_SECONDS = 1.0
TELL_SECONDS = 30.0
DEEP = "100000"
NOTHING = {"messages": 0}


class Options(Struct, frozen=True):
    seed: int = 0
    seconds: float = 60.0
    """How long things fail."""
    rate: float = 60.0
    """Messages a second, all senders together."""
    gap_seconds: float = 3.5
    """From one fault to the next, on average."""


class Outcome(Struct, frozen=True):
    topology: str
    options: Options
    history: h.History
    faults: list[Done]
    restarts: int
    settled_seconds: float
    """How long it took, once all was up, until nothing waited for anybody who reads."""
    violations: list[Violation]


async def run(cluster: Cluster, options: Options, tell: Callable[[str], None]) -> Outcome:
    """All of it; ``tell`` is told how it goes. Raises ``AssertionError`` where a process does not start."""
    recorder = Recorder(lambda text: tell(f"violation: {text}"))
    async with (
        balancing(cluster.ports("serve", "serve-api")) as api,
        balancing(cluster.ports("serve", "serve-ws")) as sockets,
    ):
        chaos = Chaos(cluster, recorder, {API: api, SOCKETS: sockets}, options.seed)
        await asyncio.to_thread(chaos.start)
        recorder.begin()
        people = People(cluster, recorder, api.port, sockets.port, options.seed)
        async with _Background() as background:
            background.start(_notified(cluster, recorder))
            background.start(chaos.watch())
            background.start(_tell(recorder, chaos, tell))
            tell(f"{cluster.name}: {options.seconds:.0f} s of faults, seed {options.seed}")
            staying = [background.start(people.stay(user)) for user in STEADY_USERS]
            await _rage(options, cluster, chaos, people, background)
            tell("settling")
            settled = await _settle(cluster, recorder)
            await _finish(cluster, recorder, people, staying)
    for name, node in cluster.nodes.items():
        if told := traceback_in(node.log().decode(errors="replace")):
            recorder.add(h.Failed(f"{name} logged a traceback: {told}"))
    return Outcome(
        cluster.name, options, recorder.history, chaos.done, chaos.restarts, settled, recorder.judge.violations
    )


async def _tell(recorder: Recorder, chaos: Chaos, tell: Callable[[str], None]) -> None:
    """How far it is, now and then."""
    while True:
        await asyncio.sleep(TELL_SECONDS)
        judge = recorder.judge
        accepted = sum(message.accepted is not None for message in judge.messages.values())
        tell(
            f"{recorder.now():.0f} s: {len(chaos.done)} faults, {accepted} messages, {len(judge.violations)} violations"
        )


class _Background:
    """Tasks that run until they are ended; one that fails ends the block with its error."""

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._group.create_task(work)
        self._tasks.append(task)
        return task


async def _rage(options: Options, cluster: Cluster, chaos: Chaos, people: People, background: _Background) -> None:
    """Traffic and faults; returns when all senders have done and all who roam are gone."""
    senders = [background.start(people.send(number, options.rate / SENDERS)) for number in range(SENDERS)]
    roaming = [background.start(people.roam(user, device)) for user in ROAMING_USERS for device in range(DEVICES)]
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(options.seconds))
        group.create_task(chaos.run(make(options.seed, options.seconds, cluster.shapes, options.gap_seconds)))
    await chaos.lift()
    people.sending.clear()
    for task in roaming:
        task.cancel()
    await asyncio.wait([*senders, *roaming], timeout=LAST_SENDS_SECONDS)


async def _settle(cluster: Cluster, recorder: Recorder) -> float:
    """Wait until nothing is under way, but no longer than the longest span; the seconds that it took."""
    began = recorder.now()
    recorder.note("chaos", "all faults are over")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while not (_all_read(recorder) and await asyncio.to_thread(_is_quiet, cluster)):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
    return recorder.now() - began


def _all_read(recorder: Recorder) -> bool:
    """Those who stay have acknowledged everything, and everything else was announced."""
    judge = recorder.judge
    unread = [message for user in STEADY_USERS for message in judge.live.get(user, {}).values()]
    unread += [m for user in STEADY_USERS for m in judge.doubtful.get(user, {}).values() if m.gone is None]
    waiting = [m for user in (*ROAMING_USERS, ABSENT_USER) for m in judge.live.get(user, {}).values()]
    return not unread and all(message.id in judge.pushed for message in waiting)


def _is_quiet(cluster: Cluster) -> bool:
    view = _overview(cluster)
    waiting = view["hot"]["messages"] + (view["ingress"] or NOTHING)["messages"]
    return waiting == 0 and bool(view["online_users"] == len(STEADY_USERS))


async def _finish(cluster: Cluster, recorder: Recorder, people: People, staying: Sequence[asyncio.Task[None]]) -> None:
    """What lies in the stores, then every queue is read until it is empty, and what then lies there."""
    for letter in await asyncio.to_thread(_dead_letters, cluster):
        recorder.add(letter)
    recorder.add(await asyncio.to_thread(_final, cluster))
    for task in staying:
        task.cancel()
    await asyncio.wait(staying)
    recorder.add(h.Draining())
    async with asyncio.timeout(DRAIN_SECONDS):
        for user in USERS:
            await people.read_all(user)
    final = await asyncio.to_thread(_final, cluster)
    left = [f"hot: {id_}" for _, id_ in final.hot] + [f"cold: {id_}" for _, id_ in final.cold]
    recorder.add(h.End((*(f"ingress: {id_}" for id_ in final.ingress), *left)))


def _final(cluster: Cluster) -> h.Final:
    """What the stores hold, as a person sees it who debugs them."""
    overview = _overview(cluster)
    hot, cold, both = [], [], []
    for user in sorted({queue["user"] for queue in overview["oldest"]}):
        for message in json.loads(cluster.cli("inspect-queue", user, "--json", "--limit", DEEP))["messages"]:
            place = user, message["id"]
            if "hot" in message["tier"]:
                hot.append(place)
            if "cold" in message["tier"]:
                cold.append(place)
            if message["tier"] == "hot+cold":
                both.append(f"{message['id']} is in hot and in cold")
    ingress = (overview["ingress"] or NOTHING)["messages"]
    waiting = (f"one of {ingress} messages",) if ingress else ()
    return h.Final(waiting, tuple(hot), tuple(cold), tuple(STEADY_USERS), oddities=tuple(both))


def _overview(cluster: Cluster) -> dict[str, Any]:
    return dict(json.loads(cluster.cli("inspect-queue", "--json", "--limit", DEEP)))


def _dead_letters(cluster: Cluster) -> list[h.Event]:
    if cluster.servers:
        return []  # they came as the push commands did
    letters = [json.loads(line) for line in cluster.cli("dead-letters", "--json").splitlines()]
    return [event for letter in letters for event in _buried(letter)]


def _buried(letter: dict[str, Any]) -> list[h.Event]:
    """Nobody sends what cannot be routed: here a dead letter is a failure, though none in secret."""
    id_, reason = letter["id"], letter["reason"]
    return [h.Buried(id_, reason), h.Failed(f"{id_} is a dead letter: {reason}")]


async def _notified(cluster: Cluster, recorder: Recorder) -> None:
    """A notification service: takes the push commands as they come."""
    async with _lines(cluster) as lines:
        async for line in lines:
            found = json.loads(line)
            if "reason" in found:
                for event in _buried(found):
                    recorder.add(event)
            else:
                recorder.add(h.Pushed(found["id"], found["recipient"]))
    raise AssertionError("what takes the push commands has ended")


@asynccontextmanager
async def _lines(cluster: Cluster) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *cluster.notifier, env=cluster.settings, stdout=asyncio.subprocess.PIPE, limit=2**22
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
