"""What the plan says happens: processes and servers are killed, told to stop, frozen; connections are cut; stored
copies of messages are damaged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import Struct

from router.cli.exits import Code
from tests.chaos.damage import LOCKED_SECONDS, OUT_OF_REACH, Copy, Stored
from tests.chaos.plan import Fault, Shape
from tests.chaos.recording import Recorder
from tests.chaos.topologies import Cluster
from tests.sim import history as h
from tests.sim.stores import flipped
from tests.support.balancer import Balancer
from tests.support.production import Node

WATCH_SECONDS = 0.5
LOOK_SECONDS = 0.1
"""From one look for a copy to damage to the next: in the ingress there is none for most of the time."""
YOUNG_SECONDS = 10.0
"""A process that was started no longer ago may not have come to handling signals, or may end since something that it
needs does not answer."""
ENDS_OF_YOUNG = (-signal.SIGTERM, Code.UNAVAILABLE)
DROPPED = 0.3
"""The share of connections that ``drop`` breaks."""


Change = Callable[[], Awaitable[object]]


def _at_once(change: Callable[[], object]) -> Change:
    async def changes() -> None:
        change()

    return changes


def _nothing() -> None:
    """Connections come back by themselves."""


class Done(Struct):
    """A fault that took place."""

    kind: str
    target: str
    group: str
    began: float
    """Seconds after the start."""
    ended: float
    """When it was undone: what was down was started again, and need not be ready yet."""


class Chaos:
    """Carries out faults; one at a time for each target, but for different ones at once."""

    def __init__(self, cluster: Cluster, recorder: Recorder, balancers: dict[str, Balancer], seed: int) -> None:
        """``balancers``: by the names of the connections that they pass on."""
        self.done: list[Done] = []
        self.restarts = 0
        """Nodes that ended by themselves because something did not answer, and were started again, as a service
        manager does."""
        self._cluster = cluster
        self._recorder = recorder
        self._balancers = balancers
        self._chance = random.Random(f"{seed} connections")
        self._copies = random.Random(f"{seed} copies")
        self._shape = cluster.shapes[0]
        self._started: dict[str, float] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def start(self) -> None:
        """The first shape, ready. Raises ``AssertionError`` where a node does not start."""
        for name in self._shape.nodes:
            self._start(name)
        for name in self._shape.nodes:
            self._cluster.nodes[name].wait()

    def _start(self, name: str) -> None:
        self._cluster.nodes[name].start()
        self._started[name] = self._recorder.now()

    async def run(self, faults: list[Fault]) -> None:
        """All of them, each at its time; returns when the last is undone."""
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, fault.at - self._recorder.now()))
                group.create_task(self._carry_out(fault))

    async def watch(self) -> None:
        """Until cancelled: a node that ends by itself is a fault of its own, unless it says that something else is
        missing; either way it is started again."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for name in self._shape.nodes:
                node = self._cluster.nodes[name]
                if node.ended is not None and not self._locks[name].locked():
                    self._revive(name, node)

    def _revive(self, name: str, node: Node) -> None:
        if node.ended == Code.UNAVAILABLE:
            self.restarts += 1
            self._recorder.note(name, "ended because something does not answer, and is started again")
        else:
            self._recorder.add(h.Failed(f"{name} ended by itself with {node.ended}: {node.said()}"))
        self._start(name)

    async def _carry_out(self, fault: Fault) -> None:
        if fault.kind == "reshape":
            await self._reshape(fault)
            return
        if fault.kind == "damage":
            await self._damage(self._cluster.stored[fault.target], fault)
            return
        async with self._locks[fault.target]:
            if self._cluster.nodes.get(fault.target) is not None and fault.target not in self._shape.nodes:
                return
            self._recorder.note(fault.target, f"{fault.kind} for {fault.seconds:.1f} s")
            began = self._recorder.now()
            await self._strike(fault)
            self.done.append(Done(fault.kind, fault.target, fault.group, began, self._recorder.now()))
            self._recorder.note(fault.target, "is back")

    async def _strike(self, fault: Fault) -> None:
        begin, end = self._changes(fault.target)[fault.kind]
        await begin()
        await asyncio.sleep(fault.seconds)
        await end()

    def _changes(self, target: str) -> dict[str, tuple[Change, Change]]:
        """For each kind of fault that ``target`` can have: what begins it, and what ends it."""
        if node := self._cluster.nodes.get(target):
            start = _at_once(partial(self._start, target))
            return {
                "kill": (partial(asyncio.to_thread, node.kill), start),
                "stop": (partial(self._stop, target, node), start),
                "pause": (_at_once(node.freeze), _at_once(node.thaw)),
            }
        if server := self._cluster.servers.get(target):
            return {
                "kill": (partial(asyncio.to_thread, server.stop), partial(asyncio.to_thread, server.start)),
                "pause": (_at_once(server.freeze), partial(asyncio.to_thread, server.thaw)),
            }
        balancer = self._balancers[target]
        return {
            "cut": (_at_once(balancer.cut), _at_once(_nothing)),
            "drop": (_at_once(partial(balancer.cut, lambda: self._chance.random() < DROPPED)), _at_once(_nothing)),
            "hush": (_at_once(balancer.hold_back), _at_once(balancer.let_through)),
        }

    async def _stop(self, name: str, node: Node) -> None:
        if node.ended is not None:
            return
        try:
            code = await asyncio.to_thread(node.stop)
        except subprocess.TimeoutExpired:
            self._recorder.add(h.Failed(f"{name} does not stop: {node.said()}"))
            await asyncio.to_thread(node.kill)
            return
        young = self._recorder.now() - self._started[name] < YOUNG_SECONDS
        if code and not (young and code in ENDS_OF_YOUNG):
            self._recorder.add(h.Failed(f"{name} was told to stop and ended with {code}: {node.said()}"))

    async def _damage(self, stored: Stored, fault: Fault) -> None:
        """One bit of one copy is another, as soon as there is one; none where there is none in time."""
        ends = self._recorder.now() + fault.seconds
        while self._recorder.now() < ends:
            with contextlib.suppress(*OUT_OF_REACH):
                if copy := self._choose(await asyncio.to_thread(stored.copies)):
                    change = partial(self._flip, copy.id, asyncio.get_running_loop())
                    if await asyncio.to_thread(stored.change, copy, change):
                        at = self._recorder.now()
                        self.done.append(Done("damage", fault.target, fault.group, at, at))
                        self._recorder.note(fault.target, f"a bit flips in {copy.id}")
                        return
            await asyncio.sleep(LOOK_SECONDS)

    def _flip(self, id_: str, loop: asyncio.AbstractEventLoop, envelope: bytes) -> bytes:
        """Called in another thread, before it is stored: the judge knows before anybody can meet it."""
        told = asyncio.run_coroutine_threadsafe(self._tell_flip(id_), loop)
        told.result(LOCKED_SECONDS)
        return flipped(envelope, self._copies)

    async def _tell_flip(self, id_: str) -> None:
        self._recorder.add(h.Flipped(id_))

    def _choose(self, copies: list[Copy]) -> Copy | None:
        """Of any queue, however long others are; none that was damaged before."""
        fresh = [copy for copy in copies if copy.id not in self._recorder.judge.flipped]
        if not fresh:
            return None
        queue = self._copies.choice(sorted({copy.queue for copy in fresh}))
        return self._copies.choice([copy for copy in fresh if copy.queue == queue])

    async def _reshape(self, fault: Fault) -> None:
        """Other nodes over the same stores: the new ones start, then the old ones are told to stop."""
        before, self._shape = self._shape, self._named(fault.target)
        self._recorder.note("topology", f"becomes {fault.target}")
        began = self._recorder.now()
        for name in self._shape.nodes:
            self._start(name)
        async with asyncio.TaskGroup() as group:
            for name in before.nodes:
                group.create_task(self._retire(name))
        self.done.append(Done("reshape", fault.target, fault.group, began, self._recorder.now()))

    async def _retire(self, name: str) -> None:
        async with self._locks[name]:
            await self._stop(name, self._cluster.nodes[name])

    def _named(self, name: str) -> Shape:
        return next(shape for shape in self._cluster.shapes if shape.name == name)

    async def lift(self) -> None:
        """All is up and ready."""
        for name in self._shape.nodes:
            try:
                await asyncio.to_thread(self._cluster.nodes[name].wait)
            except AssertionError as error:
                self._recorder.add(h.Failed(str(error)))
