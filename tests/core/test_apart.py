"""Nobody's mail waits for what only somebody else is owed, so that its arrival tells nothing of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from router.core.recipients import MUCH_BYTES, MUCH_MESSAGES
from router.errors import Unavailable
from router.messages import DeadLetter, Delivery, Message, Queued, Routed
from tests.contract.stage import BOB, EVE, Socket, Stage, staged, until
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, routed, running
from tests.support.stores import Durability, EmbeddedStores

pytestmark = pytest.mark.anyio
STATES = ("online", "offline", "full")


def recipients(batch: Sequence[object]) -> set[str]:
    """Whose mail a call is about."""
    found = set[str]()
    for one in batch:
        if isinstance(one, Delivery | Queued):
            found.add(one.message.recipient if one.message else "")
        elif isinstance(one, Message | DeadLetter):
            found.add(one.recipient)
    return found


class Held:
    """Calls about one user's mail that do not return before a test lets them."""

    def __init__(self, user: str, patch: pytest.MonkeyPatch) -> None:
        self._user = user
        self._patch = patch
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    def hold(self, component: object, call: str) -> None:
        real: Callable[..., Awaitable[object]] = getattr(type(component), call)

        async def wait(of: object, batch: Sequence[object]) -> object:
            if self._user in recipients(batch):
                self.reached.set()
                await self.let_go.wait()
            return await real(of, batch)

        self._patch.setattr(type(component), call, wait)

    async def hold_all(self, stage: Stage) -> None:
        """All that follows routing."""
        self.hold(stage.cold, "put")
        self.hold(stage.online, "settle")
        self.hold(await stage.factory.push_notifier(), "publish")
        self.hold(await stage.factory.dead_letters(), "publish")
        self.hold(await stage.factory.ingress_consumer(), "ack")


async def come_into(stage: Stage, state: str, user: str) -> None:
    if state == "online":
        await stage.connect(user)
    elif state == "full":
        await stage.fill(user)


async def came(stage: Stage, state: str, user: str, ids: list[str]) -> bool:
    """Whether these have come where mail comes to somebody in ``state``."""
    if state == "full":
        return [id_ for id_, _ in await stage.letters() if id_ in ids] == ids
    return await (stage.hot(user) if state == "online" else stage.in_cold(user)) == ids


async def test_who_is_poked_does_not_wait_for_somebody_elses_cold_write(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, socket = Held(EVE, monkeypatch), Socket()
    held.hold(stage.cold, "put")
    connected = asyncio.create_task(stage.manager.run())
    await stage.manager.connect(BOB, socket, None)
    assert await stage.ids() == []
    await stage.producer.publish([stage.message("other", EVE)])
    await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await held.reached.wait()
        await until(lambda: socket.pokes == 1)
        assert await stage.ids() == ["m1"]
        await stage.producer.publish([stage.message("m2")])
        await until(lambda: socket.pokes == 2)
        assert await stage.ids() == ["m1", "m2"]
        held.let_go.set()
        await routed(stage)
    assert await stage.ids(EVE) == ["other"]
    connected.cancel()
    await asyncio.wait([connected])


@pytest.mark.parametrize("durability", ["online-store", "write-through"])
@pytest.mark.parametrize(
    ("eve", "bob"), [(eve, bob) for eve in STATES for bob in STATES if eve != bob or eve == "full"]
)
async def test_whatever_one_recipient_is_owed_no_other_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eve: str, bob: str, durability: Durability
) -> None:
    """Both are in one batch; all that follows for the one takes as long as it likes."""
    async with staged(EmbeddedStores(tmp_path), ManualClock(), durability=durability) as stage:
        for state, user in ((eve, EVE), (bob, BOB)):
            await come_into(stage, state, user)
        held = Held(EVE, monkeypatch)
        await held.hold_all(stage)
        await stage.producer.publish([stage.message("other", EVE)])
        await stage.producer.publish([stage.message("m1")])
        async with running(stage):
            await held.reached.wait()
            await eventually(stage, partial(came, stage, bob, BOB, ["m1"]))
            await stage.producer.publish([stage.message("m2")])
            await eventually(stage, partial(came, stage, bob, BOB, ["m1", "m2"]))
            held.let_go.set()
            await routed(stage)
        assert await came(stage, eve, EVE, ["other"])
        assert await came(stage, bob, BOB, ["m1", "m2"])


@pytest.mark.parametrize("much", [{"count": MUCH_MESSAGES + 1}, {"size": MUCH_BYTES + 1}])
async def test_nobody_waits_for_all_the_mail_that_somebody_gets(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, much: dict[str, int]
) -> None:
    """Both are offline, and what little comes to others would be written with it."""
    held = Held(EVE, monkeypatch)
    held.hold(stage.online, "route")
    for number in range(much.get("count", 1)):
        await stage.producer.publish([stage.message(f"other {number}", EVE, size=much.get("size", 1))])
    await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await held.reached.wait()
        await eventually(stage, partial(came, stage, "offline", BOB, ["m1"]))
        held.let_go.set()
        await routed(stage)


async def test_without_the_online_store_nobody_waits_for_somebody_elses_later_mail(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a recipient's messages are written one after another."""

    async def down(*_: object) -> list[Routed]:
        raise Unavailable("down")

    monkeypatch.setattr(type(stage.online), "route", down)
    put, reached, let_go = type(stage.cold).put, asyncio.Event(), asyncio.Event()

    async def hold_the_second(of: object, messages: Sequence[Queued]) -> list[Queued]:
        if any(queued.message.id == "other 2" for queued in messages):
            reached.set()
            await let_go.wait()
        return await put(stage.cold, messages)

    monkeypatch.setattr(type(stage.cold), "put", hold_the_second)
    for id_, user in (("other 1", EVE), ("other 2", EVE), ("m1", BOB)):
        await stage.producer.publish([stage.message(id_, user)])
    async with running(stage):
        await reached.wait()
        await stage.producer.publish([stage.message("m2")])
        await eventually(stage, partial(came, stage, "offline", BOB, ["m1", "m2"]))
        assert await stage.in_cold(EVE) == ["other 1"]
        let_go.set()
        await eventually(stage, partial(came, stage, "offline", EVE, ["other 1", "other 2"]))


async def test_what_is_done_is_not_repeated_with_what_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a recipient who is free by then stays in order."""
    await stage.connect()
    put, route = type(stage.cold).put, type(stage.online).route
    asked, failing = list[list[str]](), True

    async def fail(of: object, messages: Sequence[Queued]) -> list[Queued]:
        if failing:
            raise Unavailable("down")
        return await put(stage.cold, messages)

    async def watch(of: object, deliveries: Sequence[Delivery]) -> list[Routed]:
        asked.append([delivery.message.id for delivery in deliveries if delivery.message])
        return await route(stage.online, deliveries)

    monkeypatch.setattr(type(stage.cold), "put", fail)
    monkeypatch.setattr(type(stage.online), "route", watch)
    for id_, user in (("other 1", EVE), ("m1", BOB), ("other 2", EVE), ("m2", BOB)):
        await stage.producer.publish([stage.message(id_, user)])
    async with running(stage):
        for id_, user in (("m3", BOB), ("other 3", EVE)):
            await eventually(stage, lambda: came(stage, "online", BOB, ["m1", "m2"]))
            await stage.producer.publish([stage.message(id_, user)])
        await eventually(stage, partial(came, stage, "online", BOB, ["m1", "m2", "m3"]))
        before = stage.failures("cold")

        async def failed_again() -> bool:
            return stage.failures("cold") > before + 1

        await eventually(stage, failed_again)
        failing = False
        await routed(stage)
    assert asked == [["other 1", "m1", "other 2", "m2"], ["m3"], ["other 1", "other 2"], ["other 3"]]
    assert (await stage.ids(), await stage.ids(EVE)) == (["m1", "m2", "m3"], ["other 1", "other 2", "other 3"])
