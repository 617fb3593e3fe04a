"""One run: traffic and faults for a time, then quiet, then everything is read; and what there is to judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from msgspec import Struct

from router.client import Unreachable
from router.dead_reasons import DeadReason
from tests.chaos.faults import Chaos, Done
from tests.chaos.people import ABSENT_USER, DEVICES, ROAMING_USERS, SENDERS, STEADY_USERS, USERS, People
from tests.chaos.plan import make
from tests.chaos.recording import Recorder
from tests.chaos.topologies import API, SOCKETS, Cluster
from tests.sim import history as h
from tests.sim.checker import Judge, Known, Violation
from tests.support.balancer import balancing
from tests.support.tracebacks import traceback_in

ENOUGH_SECONDS = 300.0
"""So long are messages waited for that a busy machine has not taken yet."""
LAST_SENDS_SECONDS = 150.0
"""A sender gives up a message after two minutes."""
SETTLE_SECONDS = 150.0
"""Longer than any span after which something is due, one after the other."""
DRAIN_SECONDS = 120.0
DAMAGE_LOOKS = 30
"""So often are all queues read until what is damaged has left them."""
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
    messages: int = 0
    """Traffic goes on until so many are accepted, where that takes longer."""


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
            await _rage(options, cluster, chaos, recorder, people, background)
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
        found = len(recorder.judge.violations)
        tell(f"{recorder.now():.0f} s: {len(chaos.done)} faults, {_accepted(recorder)} messages, {found} violations")


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


async def _rage(
    options: Options, cluster: Cluster, chaos: Chaos, recorder: Recorder, people: People, background: _Background
) -> None:
    """Traffic and faults; returns when all senders have done and all who roam are gone."""
    senders = [background.start(people.send(number, options.rate / SENDERS)) for number in range(SENDERS)]
    roaming = [background.start(people.roam(user, device)) for user in ROAMING_USERS for device in range(DEVICES)]
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(options.seconds))
        group.create_task(chaos.run(make(options.seed, options.seconds, cluster.shapes, options.gap_seconds)))
    await chaos.lift()
    await _enough(recorder, options.messages)
    people.sending.clear()
    for task in roaming:
        task.cancel()
    await asyncio.wait([*senders, *roaming], timeout=LAST_SENDS_SECONDS)


async def _enough(recorder: Recorder, messages: int) -> None:
    """Return when so many are accepted; a machine that cannot do that in time has the rest of the run judged."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENOUGH_SECONDS):
            while _accepted(recorder) < messages:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)


def _accepted(recorder: Recorder) -> int:
    return sum(message.accepted is not None for message in recorder.judge.messages.values())


async def _settle(cluster: Cluster, recorder: Recorder) -> float:
    """Wait until nothing is under way, but no longer than the longest span; the seconds that it took."""
    began = recorder.now()
    recorder.note("chaos", "all faults are over")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await _is_settled(cluster, recorder):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
    return recorder.now() - began


async def _is_settled(cluster: Cluster, recorder: Recorder) -> bool:
    if _damaged(recorder.judge, STEADY_USERS):
        await _bury(cluster, recorder)
    return _all_read(recorder) and await asyncio.to_thread(_is_quiet, cluster)


def _all_read(recorder: Recorder) -> bool:
    """Those who stay have acknowledged everything, and everything else was announced."""
    judge = recorder.judge
    unread = [message for user in STEADY_USERS for message in judge.live.get(user, {}).values()]
    unread += [m for user in STEADY_USERS for m in judge.doubtful.get(user, {}).values() if m.gone is None]
    unread += _damaged(judge, STEADY_USERS)
    waiting = [m for user in (*ROAMING_USERS, ABSENT_USER) for m in judge.live.get(user, {}).values()]
    return not unread and all(message.id in judge.pushed for message in waiting)


def _damaged(judge: Judge, users: Collection[str]) -> list[Known]:
    """What was damaged, and neither came to one of ``users`` from another copy nor is a dead letter."""
    known = [judge.by_id[id_] for id_ in judge.flipped - judge.buried if id_ in judge.by_id]
    accepted = [m for m in known if m.user in users and m.accepted is not None and not m.ephemeral]
    return [message for message in accepted if message.ack_began is None]


def _is_quiet(cluster: Cluster) -> bool:
    view = _overview(cluster)
    waiting = view["hot"]["messages"] + (view["ingress"] or NOTHING)["messages"]
    return waiting == 0 and bool(view["online_users"] == len(STEADY_USERS))


async def _finish(cluster: Cluster, recorder: Recorder, people: People, staying: Sequence[asyncio.Task[None]]) -> None:
    """What lies in the stores, then every queue is read until it is empty, and what then lies there."""
    await _bury(cluster, recorder)
    recorder.add(await asyncio.to_thread(_final, cluster))
    for task in staying:
        task.cancel()
    await asyncio.wait(staying)
    recorder.add(h.Draining())
    final = await _drain(cluster, recorder, people)
    left = [f"hot: {id_}" for _, id_ in final.hot] + [f"cold: {id_}" for _, id_ in final.cold]
    recorder.add(h.End((*(f"ingress: {id_}" for id_ in final.ingress), *left)))


async def _drain(cluster: Cluster, recorder: Recorder, people: People) -> h.Final:
    """Everybody reads all there is; what is left then. What is damaged may leave a moment after the fetch that has met
    it, and its dead letter may be told a moment later: both are waited for."""
    for _ in range(DAMAGE_LOOKS):
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                for user in USERS:
                    await people.read_all(user)
        except (Unreachable, TimeoutError) as error:
            recorder.add(h.Failed(f"not all can be read: {str(error) or 'it takes too long'}"))
            return await asyncio.to_thread(_final, cluster)
        await _bury(cluster, recorder)
        final = await asyncio.to_thread(_final, cluster)
        held = {id_ for _, id_ in (*final.hot, *final.cold)}
        if not _damaged(recorder.judge, USERS) and not held & recorder.judge.flipped:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return final


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


async def _bury(cluster: Cluster, recorder: Recorder) -> None:
    """The judge is told of the dead letters that it does not know."""
    if cluster.servers:
        return  # they come as the push commands do
    told = await asyncio.to_thread(cluster.cli, "dead-letters", "--json")
    letters = [json.loads(line) for line in told.splitlines()]
    for letter in letters:
        if letter["id"] not in recorder.judge.buried:
            _add_buried(recorder, letter)


def _add_buried(recorder: Recorder, letter: dict[str, Any]) -> None:
    """Nobody sends what cannot be routed: here a dead letter is a failure, though none in secret. Whether one may be
    called damaged the judge knows."""
    id_, reason = letter["id"], letter["reason"]
    recorder.add(h.Buried(id_, reason))
    if reason != DeadReason.DAMAGED:
        recorder.add(h.Failed(f"{id_} is a dead letter: {reason}"))


async def _notified(cluster: Cluster, recorder: Recorder) -> None:
    """A notification service: takes the push commands as they come."""
    async with _lines(cluster) as lines:
        async for line in lines:
            found = json.loads(line)
            if "reason" in found:
                _add_buried(recorder, found)
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
