"""What every carrier of push commands, dead letters and pokes must do. A backend's test subclasses these unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

import pytest

from router.dead_reasons import DeadReason
from router.interfaces import PokeBus
from router.messages import DeadLetter, Message, Queued
from tests.contract.stage import BOB, EVE, Stage

pytestmark = pytest.mark.anyio
TURN_SECONDS = 60.0


async def _stored(stage: Stage, *names: tuple[str, str]) -> list[Message]:
    """Messages, by id and recipient, that are in cold: mail that is gone needs no command."""
    messages = [stage.message(id_, user) for id_, user in names]
    await stage.cold.put([Queued(message, stage.clock.now(), stage.clock.now()) for message in messages])
    return messages


class PushContract:
    """Push commands and dead letters: durable on return."""

    async def test_commands_keep_the_order_of_their_recipient(self, stage: Stage) -> None:
        notifier = await stage.factory.push_notifier()
        b1, e1, b2, b3 = await _stored(stage, ("b1", BOB), ("e1", EVE), ("b2", BOB), ("b3", BOB))
        await notifier.publish([b1, e1, b2])
        await notifier.publish([])
        await notifier.publish([b3])
        pushed = await stage.pushed()
        assert sorted(pushed) == ["b1", "b2", "b3", "e1"]
        assert [id_ for id_ in pushed if id_ != "e1"] == ["b1", "b2", "b3"]

    async def test_a_command_for_each_of_many(self, stage: Stage) -> None:
        notifier = await stage.factory.push_notifier()
        names = [(f"m{number}", f"urn:sm:user:u{number}") for number in range(300)]
        await notifier.publish(await _stored(stage, *names))
        assert sorted(await stage.pushed()) == sorted(f"m{number}" for number in range(300))

    async def test_dead_letters_have_their_reason(self, stage: Stage) -> None:
        letters = await stage.factory.dead_letters()
        at = stage.clock.now()
        await letters.publish([DeadLetter("m1", BOB, DeadReason.QUEUE_FULL, "the detail", b"{}", 3, at)])
        await letters.publish([DeadLetter("m2", "", DeadReason.UNDECODABLE, "", b"", 1, at)])
        assert sorted(await stage.letters()) == [("m1", "queue-full"), ("m2", "undecodable")]


Buses = tuple[PokeBus, PokeBus]


class PokeContract:
    """Pokes reach the node that they are meant for. The fixture ``buses`` has those of two processes."""

    async def test_a_poke_reaches_its_node_and_no_other(self, buses: Buses) -> None:
        async with Ear(buses[0], "n1") as one, Ear(buses[1], "n2") as two:
            await one.hears(buses[1], BOB)
            await two.hears(buses[0], EVE)
            assert one.heard == {BOB}
            assert two.heard == {EVE}

    async def test_pokes_of_many_users_go_to_their_nodes(self, buses: Buses) -> None:
        async with Ear(buses[0], "n1") as one, Ear(buses[1], "n2") as two:
            await one.hears(buses[0], BOB)
            await two.hears(buses[0], BOB)
            users = [f"urn:sm:user:u{number}" for number in range(1200)]
            await buses[0].publish([(("n1", "n2")[number % 2], user) for number, user in enumerate(users)])
            await one.until(lambda: one.heard == {BOB, *users[::2]})
            await two.until(lambda: two.heard == {BOB, *users[1::2]})

    async def test_a_poke_for_a_node_that_is_gone_is_no_error(self, buses: Buses) -> None:
        await buses[0].publish([("nobody", BOB)])


class Ear:
    """A node that listens."""

    def __init__(self, bus: PokeBus, node: str) -> None:
        self.heard: set[str] = set()
        self._node = node
        self._stream: AsyncIterator[list[str]] = bus.listen(node)
        self._more = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.cancel()
        await asyncio.wait([self._listening])

    async def _listen(self) -> None:
        async for users in self._stream:
            self.heard.update(users)
            self._more.set()

    async def hears(self, bus: PokeBus, user: str) -> None:
        """Poke ``user`` until it is heard: a poke from before the node listens is lost, as any may be."""
        async with asyncio.timeout(TURN_SECONDS):
            while user not in self.heard:
                await bus.publish([(self._node, user)])
                await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TURN_SECONDS):
            while not condition():
                self._more.clear()
                await self._more.wait()
