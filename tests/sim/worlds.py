"""Two worlds from one seed: a stranger does the same in both, and only what a victim and a friend do differs.

Nothing goes wrong in them, since a crash is everybody's. What the stranger sees is compared in order and content, not
in time: see docs/proof/two-worlds.md.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct, structs

from router.factory import Factory
from tests.sim import plan as plans
from tests.sim.checker import Violation
from tests.sim.clients import FAR, Device, Sender, user_name
from tests.sim.clock import NodeClock
from tests.sim.history import Failed, History
from tests.sim.loop import Process
from tests.sim.net import ASKED_BY, Answer, Line
from tests.sim.node import token
from tests.sim.plan import NO_BOUNDS, Bounds, Plan, Vendors
from tests.sim.run import Verdict, quiet_logs
from tests.sim.world import World

PROMISE = "strangers learn nothing"
VICTIM, STRANGER = 0, 1
PATIENT_SECONDS = 60.0
"""How long the stranger waits for an answer: where calls are slow, one takes longer than other clients wait."""
COMES_SECONDS, QUIET_SECONDS = 40.0, 8.0
POLL_SECONDS = 0.2
SLOW_SECONDS = 0.1
CAP = 8
PAD = 900
BYTES_FULL = Bounds(queue_bytes=4000)
SPENT = Bounds(inbound_bytes=4000, inbound_bytes_per_second=1.0)
"""Three large messages of a friend leave room for a dozen small ones."""
_PLAIN_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7")
"""The part of an id without a key that tells when it was given."""


class Act(Struct, frozen=True):
    """One thing that the stranger does."""

    kind: Literal["send", "own", "acknowledge", "come", "go", "listen", "malformed"]
    key: str = ""
    express: bool = False
    ephemeral: bool = False
    wait: float = 0.0
    """Seconds before it."""


class Pair(Struct, frozen=True):
    """Two plans that differ in what the victim and a friend of theirs do, and the stranger's program."""

    plans: tuple[Plan, Plan]
    program: tuple[Act, ...]


def make(seed: int) -> Pair:
    """The pair of ``seed``."""
    chance = random.Random(f"worlds {seed}")
    topology = chance.choices(("one", "file", "apart", "vendors"), (2, 3, 3, 2))[0]
    base = Plan(
        seed=seed,
        topology=topology,  # type: ignore[arg-type]  # one of the words
        nodes=plans._nodes(chance, topology),  # type: ignore[arg-type]  # likewise
        users=2,
        chains=(),
        sessions=(),
        shuffled=chance.random() < 0.8,
        latency=chance.choice((0.0, 0.002, 0.02, 0.3)),
        cap=chance.choice((CAP, CAP, 100_000)),
        seconds=20.0,
        piped=plans.piped(seed),
        vendors=Vendors(online=chance.choice(("redis", "firestore")), shards=chance.choice((0, 4))),
    )
    quiet = chance.random() < 0.3
    worlds = (base if quiet else _busy(base, chance), _busy(base, chance))
    return _with_large_mail(Pair(worlds, _program(chance)), random.Random(f"large mail {seed}"))


def _with_large_mail(pair: Pair, chance: random.Random) -> Pair:
    """In some pairs a friend's mail is large: the victim's queue is full by its bytes, or no more may come to them. The
    stranger's own mail is small, and far below either. All else is what it would be without."""
    bounds = chance.choice((NO_BOUNDS, NO_BOUNDS, BYTES_FULL, SPENT))
    first, second = (
        structs.replace(
            plan,
            bounds=bounds,
            cap=plan.cap if bounds == NO_BOUNDS else 100_000,
            chains=tuple(
                structs.replace(chain, steps=tuple(structs.replace(step, pad=PAD) for step in chain.steps))
                for chain in plan.chains
            )
            if bounds != NO_BOUNDS
            else plan.chains,
        )
        for plan in pair.plans
    )
    return Pair((first, second), pair.program)


def _busy(plan: Plan, chance: random.Random) -> Plan:
    """``plan``, in which a friend writes to the victim, who comes and goes."""
    chains = plans._chains(chance, 1, 10.0)
    sessions = plans._sessions(chance, 1, 10.0)
    # The judge of this run is another one: whoever sends, and reads, may do so before the stranger comes too.
    return structs.replace(plan, chains=chains[: chance.randint(0, 4)], sessions=sessions[: chance.randint(0, 6)])


def _program(chance: random.Random) -> tuple[Act, ...]:
    keys = [f"key-{number}" for number in range(3)]
    kinds = ("send", "send", "send", "own", "own", "acknowledge", "come", "go", "listen", "malformed")
    acts = []
    for _ in range(chance.choice((8, 16, 30))):
        kind = chance.choice(kinds)
        key = chance.choice(keys) if chance.random() < 0.6 else ""
        ephemeral = kind == "send" and chance.random() < 0.4
        acts.append(Act(kind, key, chance.random() < 0.2, ephemeral, chance.random()))  # type: ignore[arg-type]  # a word
        if kind == "send" and key:
            acts.append(Act("own", key, wait=chance.random()))
    return tuple(acts)


class Named:
    """Random bytes that depend on the name of the request for which they are asked, and on nothing else."""

    def __init__(self, fallback: random.Random) -> None:
        self._fallback = fallback
        self._streams: dict[str, random.Random] = {}

    def __call__(self, count: int) -> bytes:
        name = ASKED_BY.get()
        return (self._streams.setdefault(name, random.Random(name)) if name else self._fallback).randbytes(count)


class Stranger:
    """An account that does its program, and keeps all that it sees."""

    def __init__(self, world: World, program: tuple[Act, ...]) -> None:
        self._world = world
        self._program = program
        self._chance = random.Random(world.plan.seed)
        self._user = user_name(STRANGER)
        self._token = token(self._user, FAR)
        self._line: Line | None = None
        self._others: list[str] = []
        self._own_keys: set[str] = set()
        self.seen: list[tuple[str, object]] = []

    async def run(self) -> None:
        for act in self._program:
            await self._world.loop.pause(act.wait)
            await getattr(self, f"_{act.kind}")(act)

    async def _ask(self, method: str, path: str, body: bytes = b"", key: str | None = None, query: str = "") -> Answer:
        node = self._chance.choice(self._world.nodes_with("api"))
        return await self._world.net.request(
            node, method, path, self._token, query=query, body=body, key=key, seconds=PATIENT_SECONDS,
            name=f"stranger {len(self.seen)}",
        )  # fmt: skip

    def _see(self, what: str, found: object) -> None:
        self.seen.append((what, _timeless(found) if isinstance(found, Answer) else found))

    async def _sends(self, to: int, act: Act) -> str:
        document: dict[str, object] = {"recipientId": user_name(to), "encryptedData": "bTE="}
        document |= {"isEphemeral": True} if act.ephemeral else {}
        document |= {"priority": 7} if act.express else {}
        answer = await self._ask("POST", "/api/send", json.dumps(document).encode(), act.key or None)
        self._see("send", answer)
        return str(json.loads(answer.body).get("id", ""))

    async def _send(self, act: Act) -> None:
        """To the victim; what is express goes in a batch, behind what is no envelope."""
        if not act.express:
            self._others.append(await self._sends(VICTIM, act))
            return
        to_victim = {"envelope": {"recipientId": user_name(VICTIM), "priority": 7, "isEphemeral": act.ephemeral}}
        messages = [{"envelope": {}}, {**to_victim, "idempotencyKey": act.key or None}, to_victim]
        answer = await self._ask("POST", "/api/send/batch", json.dumps({"messages": messages}).encode())
        self._see("send together", answer)
        results = json.loads(answer.body).get("results", ())
        self._others += [str(result["id"]) for result in results if "id" in result]

    async def _own(self, act: Act) -> None:
        """To oneself: it comes, once for each key, with a poke where one is connected, and goes."""
        if act.key in self._own_keys:
            await self._sends(STRANGER, act)
            return
        self._own_keys |= {act.key} - {""}
        pokes = self._line.pokes if self._line is not None else 0
        id_ = await self._sends(STRANGER, act)
        self._see("it comes", await self._until(lambda: self._holds(id_)))
        if (line := self._line) is not None:
            self._see("a poke comes", await self._until(lambda: _true(line.pokes > pokes or line.closed)))
        self._see("batch", await self._fetch())
        self._see("acknowledged", await self._acknowledges([id_]))
        self._see("batch", await self._fetch())

    async def _until(self, condition: Callable[[], Any]) -> bool:
        end = self._world.loop.time() + COMES_SECONDS
        while self._world.loop.time() < end:
            if await condition():
                return True
            await self._world.loop.pause(POLL_SECONDS)
        return False

    async def _fetch(self) -> Answer:
        return await self._ask("GET", "/api/messages", query="limit=50")

    async def _holds(self, id_: str) -> bool:
        return id_.encode() in (await self._fetch()).body

    async def _acknowledges(self, ids: list[str]) -> Answer:
        return await self._ask("POST", "/api/messages/ack", json.dumps({"messageIds": ids}).encode())

    async def _follows(self, ids: list[str]) -> Answer:
        return await self._ask("POST", "/api/messages/next", json.dumps({"messageIds": ids, "limit": 50}).encode())

    async def _acknowledge(self, act: Act) -> None:
        """What is the victim's, and what is nobody's."""
        del act
        self._see("acknowledge", await self._acknowledges([*self._others, "unknown"]))
        self._see("batch", await self._fetch())
        self._see("acknowledge and batch", await self._follows([*self._others, "unknown"]))

    async def _come(self, act: Act) -> None:
        del act
        if self._line is None:
            node = self._chance.choice(self._world.nodes_with("ws"))
            self._line = await self._world.net.connect(node, self._token, 0.0)
            self._see("batch", await self._fetch())

    async def _go(self, act: Act) -> None:
        del act
        if self._line is not None:
            self._line.leave("close")
            self._line = None
            # Whoever has left may count as there for a moment: what is sent then is hot or cold, as it happens.
            await self._world.loop.pause(QUIET_SECONDS)

    async def _listen(self, act: Act) -> None:
        """Nothing waits: there is nothing to be told of, whatever others send. Where calls are slow, a sweeper may poke
        for what was fetched meanwhile, and again, until the next fetch."""
        del act
        if (line := self._line) is not None and self._world.plan.latency < SLOW_SECONDS:
            await self._world.loop.pause(QUIET_SECONDS)
            before = line.pokes
            await self._world.loop.pause(QUIET_SECONDS)
            self._see("pokes for nothing", line.pokes - before)

    async def _malformed(self, act: Act) -> None:
        del act
        self._see("malformed", await self._ask("POST", "/api/send", b'{"recipientId":"urn:sm:user:u0","priority":{}}'))
        self._see("malformed", await self._ask("GET", "/api/messages", query="limit=none"))
        self._see("malformed", await self._ask("POST", "/api/messages/next", b'{"limit":"none"}'))


async def _true(value: bool) -> bool:
    return value


def _timeless(answer: Answer) -> Answer:
    return answer._replace(body=_PLAIN_ID.sub(b"(time)-7", answer.body))


class Watching(World):
    """A world in which there is a stranger."""

    program: tuple[Act, ...] = ()

    def factory(self, number: int, process: Process, clock: NodeClock) -> Factory:
        factory = super().factory(number, process, clock)
        factory.entropy = Named(random.Random(number))
        return factory

    async def _main(self) -> None:
        self.entropy = Named(random.Random(0))
        self.stranger = Stranger(self, self.program)
        await self._open_stores()
        for node in self.nodes:
            await node.start()
        self.devices = [Device(self, session, number) for number, session in enumerate(self.plan.sessions)]
        for device in self.devices:
            self.loop.spawn(self.outside, device.run())
        for number, chain in enumerate(self.plan.chains):
            self.loop.spawn(self.outside, Sender(self, chain, number).run())
        await self.loop.spawn(self.outside, self.stranger.run())


def _world(plan: Plan, program: tuple[Act, ...]) -> Watching:
    world = _over_vendors(plan) if plan.topology == "vendors" else Watching(plan)
    world.program = program
    return world


def _over_vendors(plan: Plan) -> Watching:
    from tests.sim.vendors.world import VendorWorld  # noqa: PLC0415 - the vendors' libraries take a second to load

    class WatchingVendors(Watching, VendorWorld):
        """The same over the vendors' stores."""

    return WatchingVendors(plan)


def run_pair(seed: int) -> Verdict:
    """Both worlds of ``seed``, judged; the history is the second one's."""
    pair = make(seed)
    worlds = [_world(plan, pair.program) for plan in pair.plans]
    histories: list[History] = []
    for world in worlds:
        with quiet_logs(world):
            histories.append(world.run())
    found = [*_failures(histories), *_difference(worlds[0].stranger.seen, worlds[1].stranger.seen)]
    last = worlds[-1]
    steps, calls = sum(world.loop.steps for world in worlds), sum(world.weather.calls for world in worlds)
    return Verdict(last.plan, histories[-1], found, steps, last.loop.time(), calls)


def _failures(histories: list[History]) -> list[Violation]:
    """What must never happen in either."""
    return [
        Violation("sound", event.text, at, index)
        for history in histories
        for index, (at, event) in enumerate(zip(history.times, history.events, strict=True))
        if isinstance(event, Failed)
    ]


def _difference(one: list[tuple[str, object]], other: list[tuple[str, object]]) -> list[Violation]:
    """The first thing in which the two views differ."""
    for index, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            text = f"thing {index}: {_words(first)}, or {_words(second)}"
            return [Violation(PROMISE, text, 0.0, 0)]
    missing = len(one) != len(other)
    return [Violation(PROMISE, f"{len(one)} or {len(other)} things were seen", 0.0, 0)] if missing else []


def _words(seen: tuple[str, object]) -> str:
    what, found = seen
    return f"{what}: {found._asdict() if isinstance(found, Answer) else found}"
