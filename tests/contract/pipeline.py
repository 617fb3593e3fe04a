"""The whole way of a message from its publish to its recipient, over every ingress. A backend's test subclasses this
unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from router.core.acceptance import Acceptor
from router.core.dead_letter_discard import discard
from router.core.dead_letter_replay import REFUSED
from router.core.send_limits import SendLimits
from router.dead_reasons import DeadReason
from router.messages import DeadLetter, Delivery, Lane, Routed
from tests.contract.stage import BOB, EVE, Socket, Stage, envelope
from tests.support import pipelines
from tests.support.damage import Change, cut_off, flipped, publish_damaged
from tests.support.pipelines import eventually
from tests.support.stores import CAP

pytestmark = pytest.mark.anyio
TURN_SECONDS = 60.0

running = partial(pipelines.running, seconds=TURN_SECONDS)


async def arrived(stage: Stage, *wanted: str, user: str = BOB) -> None:
    """Return once exactly ``wanted`` wait for ``user``, in that order; more or other ones fail."""

    async def there() -> bool:
        found = await stage.ids(user)
        assert found == list(wanted[: len(found)])
        return len(found) == len(wanted)

    await eventually(stage, there)


async def announced(stage: Stage, *wanted: str) -> None:
    """Return once ``wanted`` are announced, in that order, whatever was announced twice."""

    async def done() -> bool:
        return list(dict.fromkeys(await stage.pushed())) == list(wanted)

    await eventually(stage, done)


def accepting(stage: Stage) -> Acceptor:
    """What stands between the edge and the ingress."""
    return Acceptor(
        stage.producer,
        SendLimits(
            stage.clock,
            stage.factory.entropy,
            rate=0,
            burst=1,
            pair_rate=0,
            pair_burst=1,
            outbound_bytes=0,
            outbound_bytes_per_second=1,
        ),
        clock=stage.clock,
        entropy=stage.factory.entropy,
        idempotency_secret=b"0123456789abcdef",
        max_bytes=262_144,
        metrics=stage.factory.metrics,
    )


class PipelineContract:
    """Accepted, routed, announced."""

    @pytest.mark.parametrize("ephemeral", [True, False])
    @pytest.mark.parametrize("his", ["unknown", "offline", "online"])
    async def test_one_key_for_two_recipients_is_two_messages(self, stage: Stage, his: str, ephemeral: bool) -> None:
        """RACES 49: whoever sends under it to somebody, then to oneself, gets the same whatever the other does."""
        if his == "online":
            await stage.connect()
        if his == "offline":
            await stage.producer.publish([stage.message("before")])
        accept = partial(accepting(stage).accept, EVE, idempotency_key="key")
        async with running(stage):
            sent = await accept(envelope(BOB, Lane.NORMAL, ephemeral))
            own = await accept(envelope(EVE, Lane.NORMAL, ephemeral=False))
            assert await accept(envelope(EVE, Lane.NORMAL, ephemeral=False)) == own != sent
            await arrived(stage, own, user=EVE)
            dropped = ephemeral and his != "online"
            await arrived(stage, *["before"] * (his == "offline"), *[sent] * (not dropped))
        assert await stage.letters() == []

    async def test_what_a_full_queue_refused_is_replayed(self, stage: Stage) -> None:
        """RACES 48: under its id, in a new place, once; and what was acknowledged since does not come back."""
        sent = [f"m{number}" for number in range(CAP + 1)]
        replayer = await stage.factory.replayer()

        async def refused() -> bool:
            return stage.count("router_dead_letters_total", reason="queue-full") == 1

        async with running(stage):
            for id_ in sent:
                await stage.producer.publish([stage.message(id_)])
            await eventually(stage, refused)
            await arrived(stage, *sent[:CAP])
            await stage.queue.acknowledge(BOB, sent[:5])
            assert (await replayer.replay(REFUSED, dry_run=True)).replayed == 1
            done = await replayer.replay(REFUSED, dry_run=False)
            assert (done.replayed, done.recipients) == (1, {BOB})
            await arrived(stage, *sent[5:])
            assert (await replayer.replay(REFUSED, dry_run=False)).replayed == 0
            await stage.queue.acknowledge(BOB, sent[-1:])
            body, now = envelope(BOB, Lane.NORMAL, ephemeral=False), stage.clock.now()
            again = [DeadLetter(id_, BOB, DeadReason.QUEUE_FULL, "full", body, 1, now) for id_ in sent[-2:]]
            await (await stage.factory.dead_letters()).publish(again)
            assert (await replayer.replay(REFUSED, dry_run=False)).replayed == 2
            await stage.producer.publish([stage.message("last")])
            await arrived(stage, *sent[5:-1], "last")
        assert await stage.letters() == []

    async def test_what_is_discarded_is_gone_and_the_others_stay(self, stage: Stage) -> None:
        body, now = envelope(BOB, Lane.NORMAL, ephemeral=False), stage.clock.now()
        letters = [
            DeadLetter(id_, BOB, reason, "", body, 1, now)
            for id_, reason in (("m1", DeadReason.QUEUE_FULL), ("m2", DeadReason.DAMAGED))
        ]
        await (await stage.factory.dead_letters()).publish(letters)
        queue = await stage.factory.dead_letter_queue()
        for dry_run in (True, False):
            done = await discard(queue, lambda letter: letter.reason == DeadReason.DAMAGED, dry_run=dry_run)
            assert (done.discarded, done.left, done.recipients) == (1, 1, {BOB})
        assert await stage.letters() == [("m1", "queue-full")]

    async def test_mail_is_routed_in_order_and_announced(self, stage: Stage) -> None:
        sent = [f"m{number}" for number in range(10)]
        async with running(stage):
            for id_ in sent:
                await stage.producer.publish([stage.message(id_)])
            await arrived(stage, *sent)
            await announced(stage, *sent)

    async def test_mail_for_who_is_online_is_hot_and_poked(self, stage: Stage) -> None:
        socket = Socket()
        connected = asyncio.create_task(stage.manager.run())
        await stage.manager.connect(BOB, socket, None)
        assert await stage.ids() == []
        async with running(stage):
            await stage.producer.publish([stage.message("m1")])
            await arrived(stage, "m1")
            assert await stage.hot() == ["m1"]

            async def poked() -> bool:
                return socket.pokes > 0

            await eventually(stage, poked)
        assert await stage.pushed() == []
        connected.cancel()
        await asyncio.wait([connected])

    async def test_poison_is_a_dead_letter_and_the_rest_flows(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RACES 8."""
        route = stage.online.route

        async def choke(deliveries: Sequence[Delivery]) -> list[Routed]:
            if any(delivery.message and delivery.message.id == "poison" for delivery in deliveries):
                raise ZeroDivisionError
            return await route(deliveries)

        monkeypatch.setattr(type(stage.online), "route", lambda _, deliveries: choke(deliveries))
        for id_, user in (("poison", BOB), ("m1", BOB), ("other", EVE), ("m2", BOB)):
            await stage.producer.publish([stage.message(id_, user)])
        async with running(stage):
            await arrived(stage, "m1", "m2")
            await arrived(stage, "other", user=EVE)
        assert await stage.letters() == [("poison", "attempts-exhausted")]

    @pytest.mark.parametrize("change", [flipped, cut_off])
    async def test_what_is_damaged_is_a_dead_letter_and_the_rest_flows(self, stage: Stage, change: Change) -> None:
        """RACES 42: in the ingress."""
        for id_, user in (("m1", BOB), ("bad", BOB), ("other", EVE), ("m2", BOB)):
            message = stage.message(id_, user)
            await (publish_damaged(stage, message, change) if id_ == "bad" else stage.producer.publish([message]))
        async with running(stage):
            await arrived(stage, "m1", "m2")
            await arrived(stage, "other", user=EVE)

            async def buried() -> bool:
                # It is counted a moment after it is there.
                counted = stage.count("router_dead_letters_total", reason="damaged")
                return (await stage.letters(), counted) == ([("bad", "damaged")], 1)

            await eventually(stage, buried)
        assert "bad" not in await stage.pushed()

    async def test_a_pipeline_that_stops_leaves_the_rest_to_the_next(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """RACES 2, 4, 35: it stops in the middle of one recipient's mail, and the ingress brings all of it again."""
        put, stuck = type(stage.cold).put, asyncio.Event()

        async def hang(*_: object) -> None:
            stuck.set()
            await asyncio.Event().wait()

        sent = [f"m{number}" for number in range(6)]
        async with running(stage):
            for id_ in sent[:2]:
                await stage.producer.publish([stage.message(id_)])
            await arrived(stage, *sent[:2])
            monkeypatch.setattr(type(stage.cold), "put", hang)
            for id_ in sent[2:4]:
                await stage.producer.publish([stage.message(id_)])
            await stuck.wait()
        monkeypatch.setattr(type(stage.cold), "put", put)
        async with running(stage):
            for id_ in sent[4:]:
                await stage.producer.publish([stage.message(id_)])
            await arrived(stage, *sent)
            await announced(stage, *sent)
