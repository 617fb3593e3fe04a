"""The simulated Firestore answers as the emulator does: the same calls to both, chosen at random, equal answers."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from router.backends.firestore.client import Client
from router.backends.firestore.wire import Query, Write, deletion, new_write, only_if
from router.backends.google.calls import Patience
from router.backends.google.channels import FIRESTORE, OPTIONS
from tests.sim.vendors.firestore_server import Firestore
from tests.sim.vendors.grpc_channel import SimChannel
from tests.sim.vendors.wires import Place, Wire
from tests.support.servers import Server

pytestmark = pytest.mark.anyio
SECONDS = 20.0
NAMES = ("a", "b", "B", "é", "%2F", "a b", "10", "9", "zz~")
VALUES = (0, 1, -1, 5, 2**60, "x", "", "é", "X", True)


class One:
    """One of the two, and what it has told of its documents: the times of one mean nothing to the other."""

    def __init__(self, channel: Any, database: str) -> None:
        self.client = Client([channel], database, random.Random(1), Patience())
        self.root = f"{database}/documents"
        self.times: dict[str, list[Any]] = {}

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    async def write(self, made: list[Write], how: str) -> Any:
        """What became of the writes, without their times."""
        names = [one.update.name or one.delete for one in made]
        if how == "commit":
            times = await self.client.commit(made, SECONDS)
            self._saw(dict(zip(names, times, strict=True)))
            return len(times)
        codes = [code for code, _ in await self.client.batch_write(made, SECONDS)]
        self._saw({name: one.update_time for name, one in (await self.client.get(names, SECONDS)).items()})
        return codes

    def _saw(self, times: dict[str, Any]) -> None:
        for name, time in times.items():
            known = self.times.setdefault(name, [])
            if time.ToMicroseconds() and (not known or known[-1] != time):
                known.append(time)

    def versions(self) -> dict[str, int]:
        """How often each document has changed."""
        return {name[len(self.root) :]: len(times) for name, times in self.times.items() if times}

    def plain(self, document: Any) -> Any:
        """A document in words that both share."""
        fields = {name: (value.WhichOneof("value_type"), str(value)) for name, value in document.fields.items()}
        return document.name[len(self.root) :], fields


Pair = tuple[One, One]


@pytest.fixture
async def both(anyio_backend: str, firestore: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    monkeypatch.setenv(FIRESTORE.emulator_variable, firestore.address)
    database = f"projects/test-{uuid.uuid4().hex[:12]}/databases/(default)"
    async with grpc.aio.insecure_channel(firestore.address, options=OPTIONS) as channel:
        simulated = SimChannel(Firestore(Place(random.Random(1))), Wire())
        yield One(channel, database), One(simulated, database)


async def answers(both: Pair, ask: Callable[[One], Awaitable[Any]]) -> list[Any]:
    """Both answers, or the codes of their refusals."""
    found: list[Any] = []
    for one in both:
        try:
            found.append(await ask(one))
        except grpc.aio.AioRpcError as error:
            found.append(error.code())
    return found


def names(chance: random.Random) -> str:
    parent = chance.choice(("", "users/u1/", "users/u2/", "others/u1/"))
    return f"{parent}mail/{chance.choice(NAMES)}"


def writer(chance: random.Random, name: str) -> Callable[[One], Write]:
    """One write, the same for both."""
    deletes, field, value = chance.random() < 0.25, chance.choice(("n", "m")), chance.choice(VALUES)
    mask = chance.choice(((), (), ("n",), ("m", "n")))
    condition, version = chance.choice(("no", "no", "new", "last", "old")), chance.random()

    def make(one: One) -> Write:
        path = one.path(name)
        made = deletion(path) if deletes else new_write()
        if not deletes:
            made.update.name = path
            if mask:
                made.update_mask.field_paths.extend((*mask, field))
            written = made.update.fields[field]
            if isinstance(value, bool):
                written.boolean_value = value
            elif isinstance(value, int):
                written.integer_value = value
            else:
                written.string_value = value
        known = one.times.get(path)
        if condition == "new":
            return only_if(made, None)
        if condition in ("last", "old") and known:
            return only_if(made, known[-1] if condition == "last" else known[int(version * len(known))])
        return made

    return make


@pytest.mark.parametrize("seed", range(3))
async def test_writes(both: Pair, seed: int) -> None:
    """Preconditions of all kinds, all or nothing or one by one; and what is there afterwards."""
    chance = random.Random(seed)
    for _ in range(120):
        how = chance.choice(("commit", "batch"))
        chosen = [writer(chance, name) for name in {names(chance): None for _ in range(chance.randint(1, 4))}]
        real, made = await answers(both, lambda one, c=chosen, h=how: one.write([make(one) for make in c], h))  # type: ignore[misc]  # defaults keep the loop's values
        assert made == real
        assert both[1].versions() == both[0].versions()
    wanted = [f"{parent}mail/{name}" for parent in ("", "users/u1/") for name in (*NAMES, "missing")]
    for select in ((), ("n",), ("m", "n")):
        real, made = await answers(both, lambda one, some=select: found(one, wanted, some))  # type: ignore[misc]  # as above
        assert made == real


async def found(one: One, wanted: list[str], select: Sequence[str]) -> Any:
    there = await one.client.get([one.path(name) for name in wanted], SECONDS, select)
    return sorted(map(one.plain, there.values()), key=lambda each: str(each[0]))


def queries(chance: random.Random) -> Iterator[tuple[str, Query]]:
    """Without end: the parent and the query."""
    while True:
        bounds = [chance.choice((None, None, -1, 0, 1, 5)) for _ in range(3)]
        above: Any = chance.choice((bounds[0], bounds[0], "x", ""))
        yield (
            chance.choice(("", "", "/users/u1", "/users/u2", "/nobody/x")),
            Query(
                "mail",
                chance.choice(("n", "m")),
                chance.choice((1, 3, 50)),
                above=above,
                least=bounds[1] if not isinstance(above, str) else None,
                most=bounds[2] if not isinstance(above, str) else None,
                everywhere=chance.random() < 0.4,
                select=chance.choice(((), ("n",), ("m", "n"))),
            ),
        )


async def filled(both: Pair) -> None:
    """Documents in several collections, some without one of the fields, some with values of another type."""
    for parent in ("", "users/u1/", "users/u2/", "users/u1/deep/d/"):
        for name in NAMES:
            state = random.Random(f"{parent}{name}")
            values = {field: state.choice((0, 1, 1, 5, 2**60, "x", "é", "")) for field in ("n", "m")}
            kept = {field: value for field, value in values.items() if state.random() < 0.8}
            for one in both:
                made = new_write()
                made.update.name = one.path(f"{parent}mail/{name}")
                for field, value in kept.items():
                    kind = "string_value" if isinstance(value, str) else "integer_value"
                    setattr(made.update.fields[field], kind, value)
                await one.client.commit([made], SECONDS)


async def test_queries(both: Pair) -> None:
    """Orders by a field and, among equals, by name; bounds of one type; limits; parts of documents; groups."""
    await filled(both)
    chosen = queries(random.Random(1))
    for _ in range(150):
        parent, query = next(chosen)

        async def ask(one: One, parent: str = parent, query: Query = query) -> Any:
            return [one.plain(each) async for each in one.client.query(one.root + parent, query, SECONDS)]

        real, made = await answers(both, ask)
        assert made == real, (parent, query)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
async def test_totals(both: Pair, positive: bool, everywhere: bool) -> None:
    await filled(both)

    async def count(one: One) -> Any:
        return await one.client.count(one.root, "mail", "n", everywhere=everywhere, positive=positive)

    real, made = await answers(both, count)
    assert made == real


async def test_one_document_twice_in_a_call(both: Pair) -> None:
    async def ask(one: One) -> Any:
        return await one.client.batch_write([deletion(one.path("mail/a"))] * 2, SECONDS)

    real, made = await answers(both, ask)
    assert made == real == grpc.StatusCode.INVALID_ARGUMENT
