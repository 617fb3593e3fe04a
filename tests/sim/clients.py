"""Senders, and the devices of recipients: smart clients that pull, save and acknowledge, and come back elsewhere."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from router.envelope import read
from tests.sim import history as h
from tests.sim.clock import START
from tests.sim.links import tag_of
from tests.sim.loop import SimLoop
from tests.sim.net import Line, Lost, Refused
from tests.sim.node import Node, token
from tests.sim.plan import Chain, Session, Step

if TYPE_CHECKING:
    from tests.sim.world import World

SEND_TRIES = 5
PASSING = {"429", "503"}
"""What a good message may be answered."""
SPOILT: dict[str, object] = {"envelope": {"recipientId": "nobody at all"}}
"""A message that is refused for good."""
FAR = START + 1_000_000_000.0


class _Message(msgspec.Struct):
    id: str
    envelope: msgspec.Raw


class _Batch(msgspec.Struct):
    messages: list[_Message] = []


class _Problem(msgspec.Struct):
    status: int


class _Result(msgspec.Struct):
    """What became of one message of a batch."""

    id: str = ""
    error: _Problem | None = None

    @property
    def told(self) -> str:
        """The status that it would have had alone."""
        return "202" if self.error is None else str(self.error.status)


class _Results(msgspec.Struct):
    results: list[_Result]


_decode = msgspec.json.Decoder(_Batch).decode
_results = msgspec.json.Decoder(_Results).decode


def user_name(number: int) -> str:
    return f"urn:sm:user:u{number}"


def sender_name(number: int) -> str:
    return f"urn:sm:user:sender{number}"


def envelope(step: Step) -> bytes:
    """The body of one send; its payload is its tag."""
    document: dict[str, object] = {
        "recipientId": user_name(step.to),
        "encryptedData": base64.b64encode(step.tag.ljust(len(step.tag) + step.pad).encode()).decode(),
    }
    if step.ephemeral:
        document["isEphemeral"] = True
    if step.express:
        document["priority"] = 7
    return msgspec.json.encode(document)


class Sender:
    """Sends one chain."""

    def __init__(self, world: World, chain: Chain, number: int) -> None:
        self._world = world
        self._chain = chain
        self._chance = random.Random(world.plan.seed * 1_000 + number)
        self._name = f"s{chain.sender}"
        self._token = token(sender_name(chain.sender), FAR)

    async def run(self) -> None:
        await self._world.loop.pause(self._chain.at)
        steps, together = self._chain.steps, self._chain.together
        for start in range(0, len(steps), together):
            if wait := steps[start].wait:
                await self._world.loop.pause(wait)
            if together == 1:
                await self.send(steps[start])
            else:
                await self.send_together(steps[start : start + together])

    async def send(self, step: Step) -> bool:
        """Whether it was accepted, in one of the tries that a sender has who knows what was sent."""
        body = envelope(step)
        key = f"key-{step.tag}" if step.keyed else None
        for failures in range(SEND_TRIES if step.keyed else 1):
            if await self._try(step, body, key):
                return True
            await self._world.loop.pause(self._chance.random() * 0.2 * 2**failures)
        return False

    async def _try(self, step: Step, body: bytes, key: str | None) -> bool:
        world = self._world
        node = self._chance.choice(world.nodes_with("api"))
        op = self._begin(step, "", 0)
        began = world.loop.time()
        try:
            status, answer, _ = await world.net.request(node, "POST", "/api/send", self._token, body=body, key=key)
        except Lost as error:
            world.add(h.NotSent(op, str(error)))
            return False
        if status == 202:
            latest = world.accepted_by(node.clock, began)
            world.add(h.Sent(op, msgspec.json.decode(answer)["id"], latest))
            return True
        world.add(h.NotSent(op, str(status)))
        return False

    async def send_together(self, steps: Sequence[Step]) -> None:
        """Send these in one request; those that can be sent again and may be accepted then, in later ones too."""
        left = list(enumerate(steps))
        for failures in range(SEND_TRIES):
            refused = await self._try_together(steps[0].tag, left)
            left = [(place, step) for place, step in refused if step.keyed]
            if not left:
                return
            await self._world.loop.pause(self._chance.random() * 0.2 * 2**failures)

    async def _try_together(self, batch: str, steps: Sequence[tuple[int, Step]]) -> Sequence[tuple[int, Step]]:
        """The messages that were not accepted."""
        world = self._world
        node = self._chance.choice(world.nodes_with("api"))
        ops = [self._begin(step, batch, place) for place, step in steps]
        messages = [_in_batch(step) for _, step in steps]
        spoilt = self._chance.randrange(2 * len(steps) + 1)
        if spoilt <= len(steps):
            # It spoils no others.
            messages.insert(spoilt, SPOILT)
        body = msgspec.json.encode({"messages": messages})
        began = world.loop.time()
        try:
            status, answer, _ = await world.net.request(node, "POST", "/api/send/batch", self._token, body=body)
        except Lost as error:
            why = str(error)
        else:
            why = str(status)
            if why not in PASSING | {"202"}:
                world.failed(f"a batch is answered {why}", None)
            if status == 202:
                results = _results(answer).results
                if len(results) != len(messages):
                    world.failed(f"{len(results)} results of {len(messages)} messages", None)
                if spoilt <= len(steps) and (told := results.pop(spoilt).told) != "400":
                    world.failed(f"what is no envelope is answered {told}", None)
                latest = world.accepted_by(node.clock, began)
                return [
                    one
                    for one, op, result in zip(steps, ops, results, strict=False)
                    if not self._end(op, result, latest)
                ]
        for op in ops:
            world.add(h.NotSent(op, why))
        return steps

    def _begin(self, step: Step, batch: str, place: int) -> int:
        op, body = self._world.history.op(), envelope(step)
        size = len(read(body, len(body)).canonical)
        to = user_name(step.to)
        self._world.add(h.Sending(op, to, step.tag, step.express, step.ephemeral, self._name, size, batch, place))
        return op

    def _end(self, op: int, result: _Result, latest: float) -> bool:
        """Whether this message was accepted."""
        if result.error is None:
            self._world.add(h.Sent(op, result.id, latest))
            return True
        if result.told not in PASSING:
            self._world.failed(f"a message of a batch is answered {result.told}", None)
        self._world.add(h.NotSent(op, result.told))
        return False


def _in_batch(step: Step) -> dict[str, object]:
    message: dict[str, object] = {"envelope": msgspec.Raw(envelope(step))}
    if step.keyed:
        message["idempotencyKey"] = f"key-{step.tag}"
    return message


class Device:
    """One device of a user, for one session."""

    def __init__(self, world: World, session: Session, number: int) -> None:
        self._world = world
        self._loop: SimLoop = world.loop
        self._session = session
        self._chance = random.Random(world.plan.seed * 1_000 + 500 + number)
        self._following = random.Random(f"next {world.plan.seed} {number}")
        self._follows = self._following.choice((0.0, 0.0, 0.5, 1.0))
        """The share of its pages behind which it asks for the next with the acknowledgement."""
        self.user = user_name(session.user)
        self._token = token(self.user, FAR)
        self._name = f"{self.user.rpartition(':')[2]}/d{session.device}"
        self._limit = session.limit
        self._ends = 0.0
        self._pace = 30.0 if world.plan.day else 1.0
        self.reads = False
        """It is connected, and has read all there was."""
        self.looked_at = 0.0
        """When its last fetch began."""
        self._node = ""
        self._waits = self._is_connected = False

    async def run(self) -> None:
        session = self._session
        await self._world.loop.pause(session.at)
        self._ends = self._loop.time() + session.seconds
        failures = 0
        while not self._over():
            if session.offline:
                await self._drain(None)
                return
            try:
                node = self._chance.choice(self._world.nodes_with("ws"))
                line = await self._world.net.connect(node, self._token, session.slow)
            except (Lost, Refused) as error:
                self._world.note(self._name, f"cannot connect: {error}")
                failures += 1
                await self._world.loop.pause(self._chance.random() * min(2.0, 0.1 * 2 ** min(failures, 9)))
                await self._drain(None)
                continue
            failures = 0
            self._node = node.factory.node
            self._world.note(self._name, f"is connected to {node.process.name}")
            # The process may have died since it said so.
            self._is_connected = line.served
            if self._is_connected:
                self._world.add(h.Connected(self.user, self._name))
            line.dead = self._is_cut_off
            await self._stay(line)

    @property
    def uninformed(self) -> bool:
        """Its poke was lost, and another device has answered for it since: it was told of nothing, and nothing is left
        that would be told again."""
        lost_at = self._world.post.lost_at.get((self._node, self.user), -1.0)
        others = (other.looked_at for other in self._world.devices if other.user == self.user and other is not self)
        return self.looked_at <= lost_at <= max(others, default=-1.0)

    def _wait(self) -> None:
        """It is told when it is poked, or never."""
        if self._is_connected and not (self._waits or self._session.deaf or self._session.slow):
            self._waits = True
            self._world.add(h.Waiting(self.user, self._name))

    def _rouse(self) -> None:
        if self._waits:
            self._waits = False
            self._world.add(h.Roused(self.user, self._name))

    def _is_cut_off(self) -> None:
        """The connection is over, though the device may not know."""
        if self._is_connected:
            self._is_connected = self._waits = False
            self._world.add(h.Left(self.user, self._name))

    def _over(self) -> bool:
        if self._world.leaving:
            return True
        stays = self._session.stays and not (self._session.deaf and self._world.weather.calm)
        return not stays and self._loop.time() >= self._ends

    async def _stay(self, line: Line) -> None:
        """Drain at first and on each poke, until the session is over or the line is."""
        pokes = -1
        deaf = self._session.deaf
        while not line.closed and not self._over():
            if not deaf and pokes != line.pokes:
                self._rouse()
                pokes = line.pokes
                if not await self._drain(line):
                    break
            self.reads = not deaf
            line.news.clear()
            if (pokes != line.pokes and not deaf) or line.closed:
                continue
            self._wait()
            rest = 1.0 if self._world.weather.calm else self._pace
            if not self._session.stays:
                rest = min(rest, max(0.001, self._ends - self._loop.time()))
            try:
                async with asyncio.timeout(rest):
                    await line.news.wait()
            except TimeoutError:
                continue
        self.reads = False
        self._is_cut_off()
        if not line.closed:
            self._world.note(self._name, f"leaves: {self._session.leave}")
            line.leave("close" if self._world.weather.calm else self._session.leave)

    async def _drain(self, line: Line | None) -> bool:
        """Pull, save and acknowledge until nothing is left, or one page; False where the device dies or the line is
        cut."""
        failures = 0
        saved: list[str] | None = None
        """What the next request acknowledges; ``None``: it only fetches."""
        while not self._over() or self._session.offline:
            batch = await self._fetch(saved)
            fails = batch is None
            if batch and self._asks_on():
                saved = self._acknowledged(batch)
                if not saved:
                    await self._world.loop.pause(self._chance.random())
            elif batch:
                saved, fails = None, not await self._acknowledge(batch)
            if fails:
                failures += 1
                if self._session.offline and failures > 5:
                    return False
                if line is not None and line.closed:
                    return False
                await self._world.loop.pause(self._chance.random() * min(1.0, 0.05 * 2 ** min(failures, 9)))
                if saved is not None and self._following.random() < 0.3:
                    saved = None
                continue
            if not batch or self._session.one_page:
                return True
            failures = 0
        return False

    def _asks_on(self) -> bool:
        """Whether it acknowledges its page with the request for the next."""
        return not self._session.one_page and self._following.random() < self._follows

    async def _fetch(self, saved: list[str] | None) -> list[str] | None:
        self.looked_at = self._loop.time()
        if saved is not None:
            return await follow(self._world, self._chance, self.user, self._token, saved, self._limit)
        return await fetch(self._world, self._chance, self.user, self._token, self._limit)

    async def _acknowledge(self, batch: list[str]) -> bool:
        ids = self._acknowledged(batch)
        if not ids:
            await self._world.loop.pause(self._chance.random())
            return True
        return await acknowledge(self._world, self._chance, self.user, self._token, ids)

    def _acknowledged(self, ids: list[str]) -> list[str]:
        """What it acknowledges of a page with ``ids``."""
        sloppy = 0.0 if self._world.weather.calm or self._session.one_page else self._session.sloppy
        return self._sloppily(ids) if self._chance.random() < sloppy else ids

    def _sloppily(self, ids: list[str]) -> list[str]:
        chance = self._chance
        how = chance.choice(("none", "part", "part", "twice", "foreign"))
        if how == "none":
            return []
        if how == "part":
            return chance.sample(ids, chance.randint(1, len(ids)))
        if how == "twice":
            return [*ids, *reversed(ids)]
        others = sorted(self._world.seen_ids - set(ids))
        return [*ids, "unknown", *chance.sample(others, min(3, len(others)))]


async def fetch(world: World, chance: random.Random, user: str, bearer: str, limit: int) -> list[str] | None:
    """The ids of a batch; ``None`` where there was no answer."""
    node: Node = chance.choice(world.nodes_with("api"))
    op, began = world.history.op(), world.loop.time()
    world.add(h.Fetching(op, user, limit, _fetching_clock(world, node)))
    try:
        status, body, _ = await world.net.request(node, "GET", "/api/messages", bearer, query=f"limit={limit}")
    except Lost as error:
        world.add(h.NotFetched(op, str(error)))
        return None
    if status != 200:
        world.add(h.NotFetched(op, str(status)))
        return None
    return _fetched(world, node, user, op, began, body)


async def follow(
    world: World, chance: random.Random, user: str, bearer: str, ids: list[str], limit: int
) -> list[str] | None:
    """Acknowledges ``ids``; the ids of the batch behind them, ``None`` where there was no answer."""
    node: Node = chance.choice(world.nodes_with("api"))
    acking, op, began = world.history.op(), world.history.op(), world.loop.time()
    world.add(h.Acking(acking, user, tuple(ids)))
    world.add(h.Fetching(op, user, limit, _fetching_clock(world, node), tuple(ids)))
    body = msgspec.json.encode({"messageIds": ids, "limit": limit})
    try:
        status, body, _ = await world.net.request(node, "POST", "/api/messages/next", bearer, body=body)
        failed = "" if status == 200 else str(status)
    except Lost as error:
        failed = str(error)
    if failed:
        world.add(h.NotAcked(acking, failed))
        world.add(h.NotFetched(op, failed))
        return None
    world.add(h.Acked(acking))
    return _fetched(world, node, user, op, began, body)


def _fetching_clock(world: World, node: Node) -> float:
    """A store whose clock is right knows what has expired, whatever the node's own clock shows."""
    return min(node.clock.now() / 1_000_000, START + world.loop.time())


def _fetched(world: World, node: Node, user: str, op: int, began: float, body: bytes) -> list[str] | None:
    try:
        items = tuple(h.Item(message.id, tag_of(bytes(message.envelope))) for message in _decode(body).messages)
    except ValueError as error:
        world.failed(f"{user} was given what cannot be read", error)
        return None
    earliest, _ = node.clock.shown_since(began)
    world.add(h.Fetched(op, items, earliest))
    ids = [item.id for item in items]
    world.seen_ids.update(ids)
    return ids


async def acknowledge(world: World, chance: random.Random, user: str, bearer: str, ids: list[str]) -> bool:
    """Whether it was answered."""
    node: Node = chance.choice(world.nodes_with("api"))
    op = world.history.op()
    world.add(h.Acking(op, user, tuple(ids)))
    body = msgspec.json.encode({"messageIds": ids})
    try:
        status, *_ = await world.net.request(node, "POST", "/api/messages/ack", bearer, body=body)
    except Lost as error:
        world.add(h.NotAcked(op, str(error)))
        return False
    world.add(h.Acked(op) if status == 204 else h.NotAcked(op, str(status)))
    return status == 204
