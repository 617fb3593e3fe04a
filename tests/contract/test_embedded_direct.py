"""Where one file holds all that a message passes, it is routed as it is accepted: what of the ingress and of routing is
promised then. No pipeline runs here but where a test says so."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import direct
from router.backends.embedded.backend import EmbeddedBackend
from router.backends.embedded.migration import STEP_MESSAGES
from router.errors import NoRoom, Unavailable
from router.interfaces import IngressProducer
from router.lifecycle import Event, State, step
from router.messages import Lane, Message, MigrationResult, Move, Queued
from tests.contract.pipeline import accepting, arrived
from tests.contract.queues import listening
from tests.contract.records import ID
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Socket, Stage, envelope, names, staged
from tests.embedded.test_earlier_files import made_by
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.damage import execute
from tests.support.pipelines import eventually, routed, running
from tests.support.records import state_on_record
from tests.support.stores import CAP, EmbeddedStores

pytestmark = pytest.mark.anyio
OTHER = "urn:sm:user:other"


@pytest.fixture
def stores(tmp_path: Path) -> EmbeddedStores:
    return EmbeddedStores(tmp_path)


@pytest.fixture
async def ingress(stage: Stage) -> IngressProducer:
    """What others write to, who do not route."""
    return (await opened(stage.factory, EmbeddedBackend)).producer()


async def send(stage: Stage, *ids: str, user: str = BOB, **more: bool) -> None:
    for id_ in ids:
        await stage.producer.publish([stage.message(id_, user, **more)])  # type: ignore[arg-type]  # passes on arguments


async def waiting(stage: Stage) -> int:
    backlog = await stage.producer.backlog()
    assert backlog is not None
    return backlog.messages


def rows(stage: Stage, table: str) -> int:
    """How many rows ``table`` has, by a look that changes nothing."""
    with closing(sqlite3.connect(stage.factory.config.embedded.data_dir / "router.db")) as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def outcomes(stage: Stage, outcome: str) -> float:
    return stage.count("router_messages_routed_total", outcome=outcome)


async def test_mail_of_who_is_offline_is_in_cold_and_announced_when_it_is_accepted(stage: Stage) -> None:
    await send(stage, "m1", "m2")
    assert await waiting(stage) == 0
    assert await stage.in_cold() == await stage.pushed() == await stage.ids() == ["m1", "m2"]
    assert await stage.hot() == []
    assert (outcomes(stage, "cold"), stage.count("router_push_commands_total")) == (2, 2)


async def test_mail_of_who_is_online_is_hot_when_it_is_accepted(stage: Stage) -> None:
    await stage.connect()
    await send(stage, "m1", "m2")
    assert await waiting(stage) == 0
    assert await stage.hot() == await stage.ids() == ["m1", "m2"]
    assert await stage.in_cold() == await stage.pushed() == []
    assert outcomes(stage, "hot") == 2


async def test_a_message_is_served_as_it_was_accepted(stage: Stage) -> None:
    """Each field, in either tier."""
    await stage.connect(EVE)
    for user in (BOB, EVE):
        sent = [
            stage.message("express", user, lane=Lane.EXPRESS, size=300),
            stage.message("keyed", user, keyed=True),
            stage.message("plain", user),
        ]
        for message in sent:
            await stage.producer.publish([message])
        assert [queued.message for queued in await stage.queue.fetch(user, 10)] == sent


async def test_the_answer_comes_before_the_poke(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it comes no later because somebody is online. One poke is for all that comes before a fetch."""
    await stage.connect()
    seen: list[str] = []
    bus = await stage.factory.poke_bus()

    async def publish(_: object, pokes: Sequence[tuple[str, str]]) -> None:
        assert await stage.hot() == ["m1"], "whoever is poked finds it"
        seen.extend(user for _, user in pokes)

    monkeypatch.setattr(type(bus), "publish", publish)
    await stage.producer.publish([stage.message("m1")])
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [BOB]
    await send(stage, "m2")
    await asyncio.sleep(0)
    assert seen == [BOB]


async def test_a_poke_reaches_the_connection(stage: Stage, second: Stage) -> None:
    """Whichever process accepts the message."""
    socket = Socket()

    async def poked() -> bool:
        return socket.pokes > 0

    async with listening(second):
        await second.manager.connect(BOB, socket, None)
        await send(stage, "m1")
        async with asyncio.timeout(10):
            await eventually(stage, poked)
    assert socket.pokes == 1


@pytest.mark.parametrize("online", [True, False])
async def test_a_key_that_is_sent_twice_is_one_message(stage: Stage, online: bool) -> None:
    """RACES 1: also after it was acknowledged."""
    if online:
        await stage.connect()
    accept = accepting(stage).accept
    sent = await accept(EVE, envelope(BOB, Lane.NORMAL, ephemeral=False), "key")
    assert await accept(EVE, envelope(BOB, Lane.NORMAL, ephemeral=False), "key") == sent
    assert await stage.ids() == [sent]
    await stage.queue.acknowledge(BOB, [sent])
    assert await accept(EVE, envelope(BOB, Lane.NORMAL, ephemeral=False), "key") == sent
    assert await stage.ids() == []
    assert await stage.pushed() == []
    assert outcomes(stage, "duplicate") == 2


async def test_what_a_full_queue_refuses_is_a_dead_letter_when_it_is_accepted(stage: Stage) -> None:
    await send(stage, *[f"m{number}" for number in range(CAP)])
    await send(stage, "refused")
    assert await stage.letters() == [("refused", "queue-full")]
    assert "refused" not in await stage.ids()
    assert "refused" not in await stage.pushed()
    assert (stage.count("router_dead_letters_total", reason="queue-full"), outcomes(stage, "queue-full")) == (1, 1)
    await stage.queue.acknowledge(BOB, ["m0"])
    await send(stage, "m20")
    assert await stage.ids() == [f"m{number}" for number in range(1, CAP + 1)]


async def test_ephemeral_mail_is_for_who_is_online(stage: Stage) -> None:
    await send(stage, "early", ephemeral=True)
    assert (await stage.ids(), await stage.pushed(), await stage.letters()) == ([], [], [])
    assert outcomes(stage, "dropped-offline") == 1
    assert rows(stage, "hot") == rows(stage, "route") == rows(stage, "cold") == 0
    await stage.connect()
    await send(stage, "typing", ephemeral=True)
    assert await stage.ids() == ["typing"]


async def test_an_id_that_is_known_stays_as_it_is_where_it_is_dropped(stage: Stage) -> None:
    """A key under which an ephemeral message is sent after another."""
    await stage.producer.publish([stage.message("m1", keyed=True)])
    await stage.producer.publish([stage.message("m1", keyed=True, ephemeral=True)])
    assert await stage.ids() == ["m1"]
    await stage.queue.acknowledge(BOB, ["m1"])
    await stage.producer.publish([stage.message("m1", keyed=True)])
    assert await stage.ids() == []


async def test_what_waits_in_the_ingress_is_routed_first(stage: Stage, ingress: IngressProducer) -> None:
    """What comes for its recipient waits behind it, whoever accepts it; what comes for others does not."""
    await ingress.publish([stage.message("m1")])
    await send(stage, "m2")
    await send(stage, "other", user=EVE)
    assert await stage.ids() == []
    assert await stage.ids(EVE) == ["other"]
    assert await waiting(stage) == 2
    async with running(stage):
        await arrived(stage, "m1", "m2")
        await routed(stage)
    await send(stage, "m3")
    assert await waiting(stage) == 0
    assert await stage.ids() == ["m1", "m2", "m3"]
    assert sorted(await stage.pushed()) == ["m1", "m2", "m3", "other"]


async def test_what_cannot_be_routed_waits_for_a_pipeline_to_refuse_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the router is not the sender's; and nothing of the failed transaction stays."""

    def choke(db: object, messages: Sequence[Message], now: int) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as faulty:
        faulty.setattr(direct, "announce", choke)
        await send(stage, "m1")
    assert (await stage.in_cold(), await stage.pushed(), await waiting(stage)) == ([], [], 1)
    async with running(stage):
        await arrived(stage, "m1")


async def test_a_full_volume_refuses_what_comes(stage: Stage) -> None:
    backend = await opened(stage.factory, EmbeddedBackend)
    backend.space.short = True
    backend.space._looked_at = 2.0**62
    with pytest.raises(NoRoom):
        await send(stage, "m1")
    assert await waiting(stage) == 0
    assert await stage.ids() == []


async def test_a_damaged_copy_of_what_was_routed_is_a_dead_letter(stage: Stage) -> None:
    """RACES 42."""
    await send(stage, "bad", "m2")
    execute(stage, "UPDATE cold SET envelope = changed(envelope) WHERE id = 'bad'")
    assert await stage.ids() == ["m2"]
    assert await stage.letters() == [("bad", "damaged")]

    await stage.queue.acknowledge(BOB, ["m2"])
    assert [rows(stage, table) for table in ("hot", "cold", "route", "outbox")] == [0, 0, 0, 0]


async def test_a_damaged_hot_copy_is_a_dead_letter_and_does_not_move(stage: Stage) -> None:
    """RACES 42: the rest of its batch does."""
    phone = await stage.connect()
    await send(stage, "m1", "bad", "m3")
    execute(stage, "UPDATE hot SET envelope = changed(envelope) WHERE id = 'bad'")
    await stage.online.disconnect([phone])
    assert (await stage.migrator.migrate(BOB)).moved == 2
    assert (await stage.hot(), await stage.in_cold(), await stage.pushed()) == ([], ["m1", "m3"], ["m1", "m3"])
    assert await stage.letters() == [("bad", "damaged")]


async def test_with_write_through_hot_mail_has_no_copy_since_it_is_as_durable(doubled: Stage) -> None:
    await doubled.connect()
    await send(doubled, "m1")
    assert (await doubled.hot(), await doubled.in_cold()) == (["m1"], [])


# Leaving.


async def reach(stage: Stage, state: State, *, keyed: bool) -> Message:
    """Lead a message of BOB to ``state``, by a pipeline or without one."""
    message = stage.message(ID, keyed=keyed)
    if state is State.HOT:
        await stage.connect()
    if state in (State.HOT, State.COLD):
        await stage.producer.publish([message])
    else:
        if state is State.DOUBLE:
            await stage.connect()
        (routed,) = await stage.route(message, attempt=2 if state is State.DOUBLE else 1)
        assert await stage.cold.put([Queued(message, routed.sequence, routed.queued_at)]) == []
    assert await state_on_record(stage, ID) is state
    return message


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("comes_again", [False, True])
@pytest.mark.parametrize(
    "state", [State.HOT, State.COLD, State.PENDING, State.DOUBLE], ids=lambda state: state.name.lower()
)
async def test_an_acknowledgement_leaves_nothing_but_what_tells_a_redelivery(
    stage: Stage, ingress: IngressProducer, state: State, comes_again: bool, keyed: bool
) -> None:
    """No row in either tier, no push command and nothing for a sweeper to do; a record only if the id may come again:
    under its key, or since the ingress still has something of the recipient."""
    message = await reach(stage, state, keyed=keyed)
    if comes_again:
        await ingress.publish([message])
    assert await stage.online.ack(BOB, [ID, "unknown"]) == []
    assert [rows(stage, table) for table in ("hot", "cold", "outbox")] == [0, 0, 0]
    left = step(state, Event.REMOVED).after if keyed or comes_again else State.UNKNOWN
    assert await state_on_record(stage, ID) is left
    assert await stage.online.orphans(10) == []
    assert (await stage.online.totals(BOB)).messages == 0
    assert await stage.ids() == []
    if comes_again:
        async with running(stage):
            await routed(stage)
        assert await stage.ids() == []
    if keyed:
        await stage.producer.publish([message])
        assert await stage.ids() == []


async def test_another_users_mail_stays(stage: Stage) -> None:
    """Also under the same id, and its push command."""
    await send(stage, "m1")
    await send(stage, "m1", user=EVE)
    await stage.queue.acknowledge(EVE, ["m1", "m2"])
    assert (await stage.ids(), await stage.ids(EVE), await stage.pushed()) == (["m1"], [], ["m1"])


async def test_a_copy_that_an_outage_left_is_remembered_when_it_is_acknowledged(stage: Stage) -> None:
    """A pipeline has written it to cold without the store, and is about to tell the store of it."""
    lost = Queued(stage.message("m1"), stage.clock.now(), stage.clock.now(), unreported=True)
    assert await stage.cold.put([lost]) == []
    assert await stage.ids() == ["m1"]
    await stage.queue.acknowledge(BOB, ["m1"])
    assert await stage.in_cold() == []
    assert (await stage.online.settle([lost])).acked == [lost]


@pytest.mark.parametrize("expires", [False, True])
async def test_mail_that_has_left_without_a_tombstone_is_not_counted_when_it_is_settled_again(
    stage: Stage, expires: bool
) -> None:
    """A pipeline has not seen that the ingress let go of the message, and repeats its last steps."""
    copy = Queued(stage.message("m1"), stage.clock.now(), stage.clock.now(), unreported=True)
    assert await stage.cold.put([copy]) == []
    assert (await stage.online.settle([copy])).acked == []
    if expires:
        await stage.online.forget_cold([copy])
    else:
        await stage.queue.acknowledge(BOB, ["m1"])
    assert [rows(stage, table) for table in ("cold", "route")] == [0, 0]
    assert (await stage.online.settle([copy])).acked == [copy]
    assert [rows(stage, table) for table in ("cold", "route", "recipient WHERE cold OR cold_bytes")] == [0, 0, 0]


async def test_a_move_is_one_step_of_bounded_size(many: Stage) -> None:
    """RACES 27: each message is in one tier at any time, with its push command; others come in between."""
    phone = await many.connect()
    sent = [f"{number:04}" for number in range(2 * STEP_MESSAGES + 5)]
    await send(many, *sent)
    await many.online.disconnect([phone])
    batches: list[int] = []
    done = await many.migrator.migrate(BOB, progress=batches.append)
    assert (done.moved, batches) == (len(sent), [STEP_MESSAGES, STEP_MESSAGES, 5])
    assert await many.pushed() == await many.in_cold() == sent
    assert await many.hot() == []
    assert (many.moved(), many.count("router_push_commands_total")) == (len(sent), len(sent))
    await many.queue.acknowledge(BOB, sent)
    assert [rows(many, table) for table in ("hot", "cold", "route", "outbox")] == [0, 0, 0, 0]


async def test_a_move_announces_what_was_not_announced_and_drops_what_is_ephemeral(stage: Stage) -> None:
    phone = await stage.connect()
    await send(stage, "m1", "m2")
    await stage.online.mark_announced(await stage.online.unannounced(BOB, stage.clock.now(), 1))
    await send(stage, "typing", ephemeral=True)
    await stage.online.disconnect([phone])
    done = await stage.migrator.migrate(BOB)
    assert (done.moved, done.dropped) == (2, 1)
    assert (await stage.in_cold(), await stage.pushed()) == (["m1", "m2"], ["m2"])
    assert rows(stage, "route") == 2


async def test_a_move_waits_for_one_that_has_the_lease(stage: Stage, second: Stage) -> None:
    """Of damaged mail: that takes more than one step."""
    phone = await stage.connect()
    await send(stage, "bad", "m2")
    execute(stage, "UPDATE hot SET envelope = changed(envelope) WHERE id = 'bad'")
    await stage.online.disconnect([phone])
    move = await stage.online.begin_move(BOB, "dies", 10, PAGE_BYTES, online_too=False)
    assert isinstance(move, Move)
    assert (names(move.messages), names(move.moved)) == (["bad"], ["m2"])
    assert (await second.migrator.migrate(BOB)).result is MigrationResult.BUSY
    stage.clock.advance(61)
    assert (await second.migrator.migrate(BOB)).result is MigrationResult.DONE
    assert await stage.letters() == [("bad", "damaged")]


async def test_retention_deletes_in_one_step(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies behind it leaves nothing."""
    await send(stage, "old")
    await stage.producer.publish([stage.message("keyed", keyed=True)])
    stage.clock.advance(31 * 86_400)

    async def die(_: object, messages: Sequence[Queued]) -> list[Queued]:
        raise Unavailable("died")

    with monkeypatch.context() as patch:
        patch.setattr(type(stage.cold), "expire", die)
        with pytest.raises(Unavailable, match="died"):
            await stage.sweeper.sweep()
    assert [rows(stage, table) for table in ("cold", "outbox", "route")] == [0, 0, 1]
    assert await state_on_record(stage, "keyed") is State.ACKED


async def test_messages_of_one_call_keep_their_order_and_have_each_its_own_outcome(stage: Stage) -> None:
    """In one transaction, whoever they are for."""
    await stage.connect(EVE)
    his = [stage.message(f"m{number}") for number in range(CAP + 1)]
    hers = [stage.message(f"h{number}", EVE) for number in range(3)]
    both = [message for pair in zip(his, hers, strict=False) for message in pair]
    assert await stage.producer.publish([*both, *his[3:], his[0]]) == [None] * (len(his) + len(hers) + 1)
    assert await stage.ids() == await stage.pushed() == [message.id for message in his[:CAP]]
    assert await stage.hot(EVE) == [message.id for message in hers]
    assert await stage.letters() == [(his[CAP].id, "queue-full")]


ACCEPTED = """
    INSERT INTO ingress (id, recipient, lane, ephemeral, keyed, accepted_at, envelope) VALUES
        ('m1', :bob, 1, 0, 0, :now, :of_bob), ('h1', :eve, 1, 0, 0, :now, :of_eve),
        ('m2', :bob, 1, 0, 0, :now, :of_bob);
    INSERT INTO route (id, user, lane, sequence, state, keyed, size)
        VALUES ('m1', :bob, 1, :now, 1, 0, length(:of_bob));
    INSERT INTO recipient (user, sequence, cold, cold_bytes, pending) VALUES (:bob, :now, 1, length(:of_bob), 1);
"""
"""In version 11: what its pipeline had not taken, and one message that it had on its way to cold when it died."""


async def test_what_an_earlier_version_had_accepted_is_routed_first(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is taken over, whatever comes before a pipeline has looked."""
    bodies = {f"of_{name}": envelope(user, Lane.NORMAL, ephemeral=False) for name, user in (("bob", BOB), ("eve", EVE))}
    values = {"bob": BOB, "eve": EVE, "now": clock.now(), **bodies}
    with closing(sqlite3.connect(made_by(tmp_path, 11, monkeypatch))) as db, db:
        for statement in filter(str.strip, ACCEPTED.split(";")):
            db.execute(statement, values)
    async with staged(EmbeddedStores(tmp_path), clock) as stage:
        await send(stage, "m3")
        await send(stage, "h2", user=EVE)
        await send(stage, "other", user=OTHER)
        assert (await stage.ids(OTHER), await waiting(stage)) == (["other"], 5)
        async with running(stage):
            await routed(stage)
        await send(stage, "m4")
        assert (await stage.ids(), await stage.ids(EVE)) == (["m1", "m2", "m3", "m4"], ["h1", "h2"])
        assert (await stage.letters(), await waiting(stage)) == ([], 0)
        assert set(await stage.pushed()) == {"m1", "m2", "m3", "m4", "h1", "h2", "other"}


async def test_what_was_on_its_way_leaves_with_its_record(stage: Stage) -> None:
    """A pipeline brings it: so the fetches of the contract, which saw it under way, have no record to ask for."""
    await stage.route(stage.message("m1"), stage.message("m2"))
    await stage.queue.acknowledge(BOB, ["m1"])
    assert rows(stage, "route") == 1


async def test_a_sender_that_gives_up_holds_nobody_up(stage: Stage) -> None:
    """Of two that are published together one is gone; both messages are there, and the recipients are poked."""
    await stage.connect()
    gone = asyncio.create_task(send(stage, "m1"))
    stays = asyncio.create_task(send(stage, "m2"))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert await stage.ids() == ["m1", "m2"]


async def test_what_fails_fails_for_each_sender(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is sent afterwards is accepted."""

    async def fail(_: object, messages: Sequence[Message]) -> None:
        raise Unavailable("simulated")

    with monkeypatch.context() as faulty:
        faulty.setattr(direct.EmbeddedRoutingIngress, "publish", fail)
        failed = await asyncio.gather(send(stage, "m1"), send(stage, "m2"), return_exceptions=True)
    assert [type(error) for error in failed] == [Unavailable, Unavailable]
    await send(stage, "m3")
    assert await stage.ids() == ["m3"]
