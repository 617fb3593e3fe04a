"""An id belongs to a recipient: one id at two recipients is two messages. Part of ``QueueContract``."""

from __future__ import annotations

import pytest

from router.core.settler import Settler
from router.messages import Outcome, Queued, Settled
from tests.contract.stage import BOB, EVE, Stage


class IdContract:
    """The ids of the router differ; another publisher to the ingress may use one for two recipients."""

    @pytest.mark.parametrize("ephemeral", [False, True])
    @pytest.mark.parametrize("connected", [False, True])
    async def test_one_id_at_two_recipients_is_two_messages(
        self, stage: Stage, connected: bool, ephemeral: bool
    ) -> None:
        """RACES 49: as where another publisher to the ingress uses an id twice. What becomes of one is nothing to the
        other: each is routed, served, acknowledged and known again by itself."""
        if connected:
            await stage.connect()
        there = ["m1"] if connected or not ephemeral else []
        await stage.go("m1", keyed=True, ephemeral=ephemeral)
        await stage.connect(EVE)
        assert await stage.go("m1", EVE, keyed=True) is Outcome.HOT
        assert (await stage.ids(), await stage.ids(EVE)) == (there, ["m1"])
        await stage.queue.acknowledge(BOB, ["m1"])
        assert (await stage.ids(), await stage.ids(EVE)) == ([], ["m1"])
        assert await stage.go("m1", EVE, keyed=True) is Outcome.DUPLICATE
        await stage.queue.acknowledge(EVE, ["m1"])
        assert await stage.ids(EVE) == await stage.hot(EVE) == await stage.in_cold(EVE) == []
        assert await stage.go("m1", EVE, keyed=True) is Outcome.DUPLICATE
        if there:
            assert await stage.go("m1", keyed=True, ephemeral=ephemeral) is Outcome.DUPLICATE

    async def test_one_id_at_two_recipients_in_one_batch(self, stage: Stage) -> None:
        """RACES 49: routed together, settled together, one of them acknowledged meanwhile, moved and forgotten."""
        await stage.connect(EVE)
        messages = [stage.message("m1", user) for user in (BOB, EVE)]
        (his, hers) = await stage.route(*messages)
        assert (his.outcome, hers.outcome) == (Outcome.COLD, Outcome.HOT)
        pairs = zip(messages, (his, hers), strict=True)
        queued = [Queued(message, routed.sequence, routed.queued_at) for message, routed in pairs]
        assert await stage.online.ack(EVE, ["m1"]) == []
        assert await stage.cold.put(queued) == []
        assert await stage.online.settle(queued) == Settled([queued[1]], [])
        assert await Settler(stage.online, stage.cold).settle(queued) == queued[:1]
        assert (await stage.ids(), await stage.in_cold(EVE)) == (["m1"], [])
        await stage.online.forget_orphans(EVE, ["m1"])
        assert [(await stage.route(message))[0].outcome for message in messages] == [
            Outcome.ANNOUNCE,
            Outcome.DUPLICATE,
        ]
        assert (await stage.online.acked(BOB, ["m1"]), await stage.online.acked(EVE, ["m1"])) == (set(), {"m1"})

    async def test_one_id_of_two_queues_that_move(self, stage: Stage) -> None:
        """RACES 49: a migration of one takes nothing of the other, and each leaves its own record."""
        phones = [await stage.connect(user) for user in (BOB, EVE)]
        for user in (BOB, EVE):
            assert await stage.go("m1", user) is Outcome.HOT
        await stage.online.disconnect(phones[:1])
        assert (await stage.migrator.migrate(BOB)).moved == 1
        assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
        assert (await stage.hot(EVE), await stage.in_cold(EVE)) == (["m1"], [])
        await stage.queue.acknowledge(BOB, ["m1"])
        assert (await stage.ids(), await stage.ids(EVE)) == ([], ["m1"])
        stage.clock.advance(3601)
        await stage.sweeper.sweep()
        assert await stage.ids(EVE) == ["m1"]
        assert await stage.go("m1", EVE) in (Outcome.DUPLICATE, Outcome.ANNOUNCE)
        assert await stage.go("m1") is Outcome.COLD, "an hour later it is forgotten"

    async def test_mail_of_an_outage_under_an_id_of_another_user_is_delivered_and_goes(self, stage: Stage) -> None:
        """RACES 10, 29, 49: it went past the store, which knows another user's mail under the same id."""
        for user in (BOB, EVE):
            await stage.connect(user)
        assert await stage.go("m1", EVE, keyed=True) is Outcome.HOT
        assert await stage.ids() == [], "from here on cold is known to be empty"
        now = stage.clock.now()
        assert await stage.cold.put([Queued(stage.message("m1", keyed=True), now, now, unreported=True)]) == []
        stage.clock.advance(61)
        await stage.sweeper.sweep()
        assert await stage.cold.unreported(stage.clock.now(), 10) == []
        assert await stage.in_cold() == await stage.in_cold(EVE) == ["m1"], "hers has moved there"
        assert await stage.ids() == await stage.ids(EVE) == ["m1"]
        await stage.queue.acknowledge(BOB, ["m1"])
        assert (await stage.ids(), await stage.in_cold(), await stage.ids(EVE)) == ([], [], ["m1"])
        await stage.queue.acknowledge(EVE, ["m1"])
        assert (await stage.ids(EVE), await stage.in_cold(EVE)) == ([], [])

    async def test_mail_of_two_users_under_one_id_is_told_at_once(self, stage: Stage) -> None:
        """RACES 10: both came in an outage."""
        users, now = (BOB, EVE), stage.clock.now()
        for user in users:
            await stage.connect(user)
            assert await stage.ids(user) == [], "from here on cold is known to be empty"
        both = [Queued(stage.message("m1", user, keyed=True), now, now, unreported=True) for user in users]
        assert await stage.cold.put(both) == []
        assert await stage.online.settle(both) == await stage.online.settle(both) == Settled([], [])
        assert await stage.ids() == await stage.ids(EVE) == ["m1"]
        for user in users:
            await stage.queue.acknowledge(user, ["m1"])
        assert await stage.in_cold() == await stage.in_cold(EVE) == []

    async def test_retention_of_mail_under_an_id_of_another_user_is_nothing_to_them(self, stage: Stage) -> None:
        assert await stage.go("m1", EVE, keyed=True) is Outcome.COLD
        before = stage.clock.now() - 3600 * 1_000_000
        assert await stage.cold.put([Queued(stage.message("m1", keyed=True), before, before)]) == []
        assert await stage.in_cold() == ["m1"]
        stage.clock.advance(30 * 86_400 - 1800)
        await stage.sweeper.sweep()
        assert (await stage.cold.totals(None)).messages == 1
        assert (await stage.ids(), await stage.ids(EVE)) == ([], ["m1"])

    async def test_two_users_may_have_cold_mail_under_one_id(self, stage: Stage) -> None:
        """RACES 29, 49: of each what was written to it."""
        hers, his = (Queued(stage.message("m1", user, keyed=True), 5, stage.clock.now()) for user in (EVE, BOB))
        for queued in (hers, his, hers):
            assert await stage.cold.put([queued]) == []
        assert await stage.in_cold() == await stage.in_cold(EVE) == ["m1"]
        await stage.cold.delete(BOB, ["m1"])
        assert (await stage.in_cold(), await stage.in_cold(EVE)) == ([], ["m1"])
