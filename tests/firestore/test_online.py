"""The online store in Firestore: two processes at once, lost answers, costs, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc.aio import Metadata

from router.backends.firestore import records
from router.backends.firestore.backend import FirestoreBackend
from router.backends.firestore.client import Client
from router.backends.firestore.online import FirestoreOnlineStore
from router.backends.firestore.queries import Reader
from router.backends.firestore.wire import Write
from router.backends.routing_rules import LEAD_SECONDS
from router.messages import Connection, Delivery, Message, MigrationResult, Move, Outcome, Queued
from router.pages import Head
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, moved_by_a_wrong_clock, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.pipelines import routed, running
from tests.support.servers import Server
from tests.support.stores_firestore import FirestoreStores

pytestmark = pytest.mark.anyio


async def client_of(stage: Stage) -> Client:
    return (await opened(stage.factory, FirestoreBackend)).client


def store_of(stage: Stage) -> FirestoreOnlineStore:
    assert isinstance(stage.online, FirestoreOnlineStore)
    return stage.online


async def check_counters(stage: Stage, user: str = BOB) -> None:
    """The state says what is there."""
    state = await store_of(stage).state.transactions.state(user)
    assert state is not None
    assert state.hot == (await stage.online.totals(user)).messages
    cold = (await stage.cold.totals(user)).messages
    assert state.cold == cold or (state.cold_empty and not cold)
    assert not state.pending


async def documents(stage: Stage) -> dict[str, int]:
    """How many documents there are of each kind."""
    client, layout = await client_of(stage), store_of(stage).state.layout
    return {
        "users": (await client.count(layout.documents, layout.collection, "sequence"))[0],
        "ids": (await client.count(layout.documents, f"{layout.collection}-ids", "state"))[0],
        "hot": (await client.count(layout.documents, layout.hot, "size", everywhere=True))[0],
    }


# Two processes at once.


async def test_two_pipelines_on_one_recipient(stage: Stage, second: Stage) -> None:
    """RACES 4, 5, 9: each id once, each with a sequence of its own."""
    await stage.connect()
    messages = [stage.message(f"m{number:02}") for number in range(24)]

    async def route(by: Stage, part: Sequence[Message]) -> list[int]:
        return [(await by.route(message))[0].sequence for message in part]

    await asyncio.gather(route(stage, messages[:16]), route(second, messages[8:]))
    page = await stage.online.read(BOB, 50, PAGE_BYTES)
    assert sorted(queued.message.id for queued in page.messages) == [message.id for message in messages]
    assert len({queued.sequence for queued in page.messages}) == 24
    again = [await stage.route(message) for message in messages]
    assert all(routed.outcome is Outcome.DUPLICATE for (routed,) in again)
    await check_counters(stage)


async def test_everything_at_once(stage: Stage, second: Stage) -> None:
    """RACES 5, 22, 23, 24: whatever meets, each id is there once or was acknowledged, and the counters are right."""
    phone = await stage.connect()
    acked: set[str] = set()

    async def send(by: Stage, name: str) -> None:
        for number in range(12):
            message = by.message(f"{name} {number:02}")
            (routed,) = await by.route(message)
            if routed.outcome is Outcome.COLD:
                queued = Queued(message, routed.sequence, routed.queued_at)
                assert await by.cold.put([queued]) == []
                for orphan in (await by.online.settle([queued])).acked:  # acknowledged meanwhile
                    await by.cold.delete(BOB, [orphan.message.id])
                    await by.online.forget_orphans(BOB, [orphan.message.id])

    async def take(by: Stage) -> None:
        for _ in range(6):
            batch = (await by.ids(limit=5))[:3]
            await by.queue.acknowledge(BOB, batch)
            acked.update(batch)

    async def come_and_go(by: Stage) -> None:
        for _ in range(3):
            await by.online.disconnect([phone])
            await by.migrator.migrate(BOB)
            await by.online.connect(phone, 20)

    await asyncio.gather(
        send(stage, "a"), send(second, "b"), take(stage), take(second), come_and_go(stage), come_and_go(second)
    )
    sent = {f"{name} {number:02}" for name in "ab" for number in range(12)}
    left = await stage.ids()
    assert len(left) == len(set(left))
    assert set(left) == sent - acked
    assert [id_ for id_ in left if id_.startswith("a")] == sorted(id_ for id_ in left if id_.startswith("a"))
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    assert await stage.ids() == left
    await check_counters(stage)


async def test_two_migrators_on_one_queue(stage: Stage, second: Stage) -> None:
    """RACES 14, 22."""
    phone = await stage.connect()
    for number in range(30):
        await stage.go(f"{number:02}")
    await stage.online.disconnect([phone])
    results = await asyncio.gather(stage.migrator.migrate(BOB), second.migrator.migrate(BOB))
    assert sum(result.moved for result in results) == 30
    assert {result.result for result in results} <= {MigrationResult.DONE, MigrationResult.BUSY}
    assert (await stage.hot(), await stage.in_cold()) == ([], [f"{number:02}" for number in range(30)])
    await check_counters(stage)


async def test_one_id_for_two_recipients_at_once(stage: Stage, second: Stage) -> None:
    """RACES 49: neither is in the other's way."""
    outcomes = await asyncio.gather(stage.go("m1", BOB, keyed=True), second.go("m1", EVE, keyed=True))
    assert set(outcomes) == {Outcome.COLD}


async def test_records_of_a_version_in_which_an_id_was_one_users_are_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has routed is known when it comes again, acknowledged, moved and forgotten; mail of others under these
    ids is none of it."""
    with monkeypatch.context() as before:
        before.setattr(records, "path", lambda collection, _, id_: records.earlier_path(collection, id_))
        phone = await stage.connect()
        for id_ in ("hot", "acked", "moved"):
            assert await stage.go(id_) is Outcome.HOT
        await stage.queue.acknowledge(BOB, ["acked"])
        await stage.online.disconnect([phone])
        assert await stage.go("cold") is Outcome.COLD
    for id_ in ("hot", "acked", "moved", "cold"):
        assert await stage.go(id_, EVE) is Outcome.COLD
    redelivered = await stage.route(*(stage.message(id_) for id_ in ("hot", "acked", "cold")), attempt=2)
    assert [routed.outcome for routed in redelivered] == [Outcome.DUPLICATE, Outcome.DUPLICATE, Outcome.ANNOUNCE]
    await stage.queue.acknowledge(BOB, ["hot"])
    assert (await stage.migrator.migrate(BOB)).moved == 1
    assert await stage.ids() == await stage.in_cold() == ["moved", "cold"]
    await stage.queue.acknowledge(BOB, ["moved", "cold"])
    await check_counters(stage)
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    stage.clock.advance(3600)
    await stage.sweeper.sweep()
    assert (await documents(stage))["ids"] == 4, "those of the other"
    assert await stage.ids(EVE) == ["hot", "acked", "moved", "cold"]


# Moments.


@pytest.mark.parametrize("early", [True, False])
async def test_a_move_while_a_fetch_reads_hides_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    """RACES 6, 25: it runs between two of the reads that a fetch consists of, and new mail follows it."""
    await stage.connect()
    assert await stage.ids() == [], "from here on cold is known to be empty"
    await stage.go("m1")
    page = Reader.heads

    async def move_and_send(reader: Reader, *arguments: Any, **named: Any) -> Head:
        monkeypatch.undo()
        before = None if early else await page(reader, *arguments, **named)
        await stage.migrator.migrate(BOB, online_too=True)
        await stage.go("m2")
        return before or await page(reader, *arguments, **named)

    monkeypatch.setattr(Reader, "heads", move_and_send)
    assert await stage.ids() == (["m1", "m2"] if early else ["m1"])
    assert await stage.ids() == ["m1", "m2"]


async def test_what_a_fetch_under_way_has_missed_is_poked(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 12."""
    poked: list[str] = []
    monkeypatch.setattr(store_of(stage).state, "publish", lambda pokes: collect(poked, pokes))
    await stage.connect()
    await stage.go("m1")
    await stage.go("m2")
    assert poked == [BOB], "nobody has fetched since"
    page = Reader.heads

    async def send_behind(reader: Reader, *arguments: Any, **named: Any) -> Head:
        found = await page(reader, *arguments, **named)
        await stage.go("m3")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "heads", send_behind)
        assert await stage.ids() == ["m1", "m2"]
    assert poked == [BOB, BOB]


async def collect(poked: list[str], pokes: Sequence[tuple[str, str]]) -> None:
    poked += [user for _, user in pokes]


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """While this holds a number, that many commits are carried out and their answers are lost."""
    commit, left = Client.commit, [0]

    async def lose(client: Client, writes: Sequence[Write], seconds: float) -> list[Any]:
        done = await commit(client, writes, seconds)
        if left[0]:
            left[0] -= 1
            raise grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, Metadata(), Metadata(), "forced")
        return done

    monkeypatch.setattr(Client, "commit", lose)
    return left


async def test_a_route_whose_answer_was_lost_pokes_and_leaves_one_copy(
    stage: Stage, losing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 2, 11: the repeated step finds its own work, and what that owed is done."""
    poked: list[str] = []
    monkeypatch.setattr(store_of(stage).state, "publish", lambda pokes: collect(poked, pokes))
    await stage.connect()
    losing[0] = 1
    await stage.go("m1")
    assert poked == [BOB]
    assert await stage.ids() == ["m1"]
    await stage.online.disconnect(await stage.online.connections(BOB))
    losing[0] = 1
    message = stage.message("m2")
    (cold,) = await stage.route(message)
    assert cold.outcome is Outcome.COLD
    await stage.connect()
    losing[0] = 1
    await stage.store(message, cold)
    assert poked == [BOB, BOB], "they came online meanwhile"
    assert await stage.ids() == ["m1", "m2"]
    await check_counters(stage)


async def test_an_acknowledgement_whose_answer_was_lost_deletes_both_copies(stage: Stage, losing: list[int]) -> None:
    """RACES 24, 30."""
    await stage.go("cold")
    await stage.connect()
    await stage.go("hot")
    losing[0] = 1
    await stage.queue.acknowledge(BOB, ["cold", "hot"])
    assert (await stage.ids(), await stage.hot(), await stage.in_cold()) == ([], [], [])
    await check_counters(stage)


async def test_a_move_whose_answers_were_lost_moves_all_once(stage: Stage, losing: list[int]) -> None:
    """RACES 21."""
    phone = await stage.connect()
    for id_ in ("m1", "m2", "m3"):
        await stage.go(id_)
    await stage.online.disconnect([phone])
    losing[0] = 3
    await stage.migrator.migrate(BOB)
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1", "m2", "m3"])
    await check_counters(stage)


# Costs and bounds.


async def test_what_each_call_costs(stage: Stage) -> None:
    """Round trips and documents, of one message alone."""
    await stage.connect()
    assert await stage.ids() == []
    client = await client_of(stage)

    def spent() -> tuple[int, ...]:
        now = client.statistics
        counted = (now.gets, now.queries, now.commits, now.batch_writes, now.documents_written)
        client.statistics = type(now)()
        return counted

    spent()
    assert await stage.go("m1") is Outcome.HOT
    assert spent() == (1, 0, 1, 0, 3), "route: the state, the record and the message"
    assert await stage.ids() == ["m1"]
    assert spent() == (2, 1, 1, 0, 1), "fetch, after a poke: the state is marked, read again, and a page"
    await stage.queue.acknowledge(BOB, ["m1"])
    assert spent() == (1, 0, 1, 0, 3), "ack"
    assert await stage.ids() == []
    assert spent() == (1, 0, 0, 0, 0), "a fetch that finds nothing"
    assert await stage.go("m2") is Outcome.HOT
    spent()
    assert await stage.queue.next(BOB, ["m2"], 50) == []
    assert spent() == (1, 0, 1, 0, 3), "ack and fetch: as ack alone"
    assert await stage.online.renew(await stage.online.connections(BOB)) == []
    assert spent() == (2, 0, 0, 0, 0), "the clock stands still, so the lease is what it was"
    stage.clock.advance(20)
    assert await stage.online.renew([Connection(BOB, "phone", "", 0)]) == []
    assert spent() == (1, 0, 0, 1, 1), "a heartbeat: one read and one write for all connections of a node"


async def test_a_page_costs_the_same_at_any_depth(stage: Stage) -> None:
    """RACES 27, 34: a page read and acknowledged, a batch moved; counted in calls and documents."""
    client = await client_of(stage)

    async def cost() -> str:
        client.statistics = type(client.statistics)()
        page = await stage.online.read(BOB, 10, PAGE_BYTES)
        assert (len(page.messages), bool(page.more)) == (10, True)
        await stage.online.ack(BOB, [queued.message.id for queued in page.messages])
        move = await stage.online.begin_move(BOB, "me", 10, PAGE_BYTES, online_too=True)
        assert isinstance(move, Move)
        await stage.online.end_move(BOB, "me", move.messages)
        return repr(client.statistics)

    await stage.connect()
    costs = []
    for first, last in ((0, 50), (100, 1000)):
        for start in range(first, last, 50):
            await stage.route(*(stage.message(f"{number:04}") for number in range(start, start + 50)))
        await stage.online.read(BOB, 1, PAGE_BYTES)  # answers the poke, which costs a write of its own
        costs.append(await cost())
    assert costs[1] == costs[0]


async def test_a_migrator_takes_a_batch_by_one_write(stage: Stage) -> None:
    phone = await stage.connect()
    await stage.route(*(stage.message(f"m{number}") for number in range(30)))
    await stage.online.disconnect([phone])
    client = await client_of(stage)
    before = client.statistics.documents_written
    move = await stage.online.begin_move(BOB, "me", 20, PAGE_BYTES, online_too=False)
    assert isinstance(move, Move)
    assert (len(move.messages), move.more) == (20, True)
    assert client.statistics.documents_written == before + 1


async def test_steps_fit_into_a_commit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number and by their bytes; the order stays."""
    commit, sizes = Client.commit, list[tuple[int, int]]()

    async def measure(client: Client, writes: Sequence[Write], seconds: float) -> list[Any]:
        sizes.append((len(writes), sum(write.ByteSize() for write in writes)))
        return await commit(client, writes, seconds)

    monkeypatch.setattr(Client, "commit", measure)
    await stage.connect()
    now = stage.clock.now()
    small = [stage.message(f"{number:04}") for number in range(450)]
    large = [
        Message(f"large {number}", BOB, b"x" * 500_000, message.lane, False, now)
        for number, message in enumerate(small[:15])
    ]
    results = await stage.online.route([Delivery(message, 0, 1) for message in (*small, *large)])
    sequences = [result.sequence for result in results]
    assert sequences == sorted(set(sequences))
    assert max(count for count, _ in sizes) <= 500
    assert max(size for _, size in sizes) < 4 * 1024 * 1024
    ids = [message.id for message in (*small, *large)]
    page = await stage.online.read(BOB, 1000, PAGE_BYTES)
    assert [queued.message.id for queued in page.messages] == ids
    page = await stage.online.read(BOB, 1000, 2_000_000)
    assert page.more
    await stage.migrator.migrate(BOB, online_too=True)
    await stage.online.ack(BOB, ids)
    assert max(count for count, _ in sizes) <= 500
    assert max(size for _, size in sizes) < 4 * 1024 * 1024
    await check_counters_after_ack(stage)


async def check_counters_after_ack(stage: Stage) -> None:
    state = await store_of(stage).state.transactions.state(BOB)
    assert state is not None
    assert (state.hot, state.cold) == (0, 0)


async def test_nothing_is_left_of_users_who_came_and_went(stage: Stage) -> None:
    """Neither of their mail, nor of its ids, nor of themselves."""
    users = [f"urn:sm:user:u{number}" for number in range(25)]
    for number, user in enumerate(users):
        phone = await stage.connect(user)
        await stage.go(f"hot {number}", user)
        await stage.go(f"typing {number}", user, ephemeral=True)
        await stage.queue.acknowledge(user, [f"hot {number}"])
        await stage.online.disconnect([phone])
        await stage.go(f"cold {number}", user)
        await stage.queue.acknowledge(user, [f"cold {number}"])
    assert await documents(stage) == {"users": 25, "ids": 75, "hot": 25}
    stage.clock.advance(11)
    assert await stage.online.purge(500, stage.clock.now()) == 25
    assert (await documents(stage))["hot"] == 0
    stage.clock.advance(3600)
    for _ in range(3):
        await stage.sweeper.sweep()
    assert (await documents(stage))["ids"] == 0
    stage.clock.advance(3600)
    await stage.sweeper.sweep()
    assert await documents(stage) == {"users": 0, "ids": 0, "hot": 0}


async def test_ephemeral_mail_that_is_left_is_dropped_in_its_turn(stage: Stage) -> None:
    """RACES 28: what is younger stays, and is found by a later look."""
    await stage.connect()
    await stage.go("old", ephemeral=True)
    stage.clock.advance(6)
    await stage.go("young", ephemeral=True)
    await stage.go("mail")
    stage.clock.advance(5)
    assert await stage.online.purge(100, stage.clock.now()) == 1
    assert await stage.hot() == ["young", "mail"]
    assert await stage.online.purge(100, stage.clock.now()) == 0
    stage.clock.advance(11)
    assert await stage.online.purge(100, stage.clock.now()) == 1
    assert await stage.hot() == ["mail"]
    await check_counters(stage)


# What sweepers and people see.


async def test_busy_users_in_order_of_their_names_a_page_at_a_time(stage: Stage) -> None:
    users = sorted([BOB, EVE, "urn:sm:user:a/b", "urn:sm:user:\u00e9", "urn:sm:user:_x_", "urn:sm:user:%2F"])
    for number, user in enumerate(users):
        await stage.connect(user)
        await stage.go(f"m{number}", user)
    await stage.connect("urn:sm:user:idle")
    assert await stage.ids("urn:sm:user:idle") == []
    found: list[str] = []
    after = ""
    while page := await stage.online.hot_users(after, 2):
        found += [user.user for user in page]
        after = page[-1].user
    assert found == users
    await stage.queue.acknowledge(BOB, await stage.ids())
    assert [user.user for user in await stage.online.hot_users("", 50)] == [user for user in users if user != BOB]


async def test_what_a_busy_user_is_like(stage: Stage) -> None:
    await stage.connect()
    started = stage.clock.now()
    await stage.go("m1")
    stage.clock.advance(2)
    await stage.go("typing", ephemeral=True)
    await stage.go("m2")
    stage.clock.advance(10)
    await stage.queue.acknowledge(BOB, ["m1"])
    (bob,) = await stage.online.hot_users("", 9)
    assert (bob.live, bob.hot, bob.oldest_at - started, bob.unannounced_at - started) == (1, 2, 2_000_000, 2_000_000)
    assert (bob.poked_at, bob.fetched) == (started, False)
    waiting = await stage.online.unannounced(BOB, stage.clock.now(), 10)
    assert [queued.message.id for queued in waiting] == ["m2"]
    await stage.online.mark_announced(waiting)
    (bob,) = await stage.online.hot_users("", 9)
    assert (bob.oldest_at - started, bob.unannounced_at) == (2_000_000, 0)
    assert [queued.announced for queued in await stage.online.inspect(BOB, 9)] == [True, True]


async def test_totals(stage: Stage) -> None:
    await stage.connect()
    await stage.connect(EVE, "phone")
    await stage.connect(EVE, "laptop")
    await stage.go("m1")
    stage.clock.advance(7)
    await stage.go("m2", EVE)
    await stage.go("m3", EVE)
    everyone, bob, eve = await stage.online.totals(None), await stage.online.totals(BOB), await stage.online.totals(EVE)
    assert (everyone.messages, everyone.users, everyone.oldest_at) == (3, 2, bob.oldest_at)
    assert everyone.bytes == bob.bytes + eve.bytes
    assert eve.oldest_at - bob.oldest_at == 7_000_000
    online = await stage.online.online()
    assert (online.users, online.messages) == (2, 3)


async def test_the_lead_ends_with_its_lease(stage: Stage) -> None:
    assert await stage.online.lead("first")
    stage.clock.advance(LEAD_SECONDS - 1)
    assert not await stage.online.lead("second")
    stage.clock.advance(1)
    assert await stage.online.lead("second")
    assert not await stage.online.lead("first")
    online = await stage.online.online()
    assert (online.users, await stage.online.hot_users("", 9)) == (0, []), "who leads is no user"


async def test_ids_that_no_document_can_have_are_unknown(stage: Stage) -> None:
    """RACES 29, 39."""
    await stage.go("m1")
    odd = ["x" * 5000, "\ud800", "", ".", "__x__", "/"]
    assert await stage.online.acked(BOB, odd) == set()
    await stage.queue.acknowledge(BOB, odd)
    assert await stage.ids() == ["m1"]


async def test_a_pipeline_over_firestore(stage: Stage) -> None:
    await stage.connect()
    for number in range(10):
        await stage.producer.publish([stage.message(f"m{number}", BOB if number % 2 else EVE)])
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == [f"m{number}" for number in range(1, 10, 2)]
    assert await stage.ids(EVE) == await stage.pushed() == [f"m{number}" for number in range(0, 10, 2)]


async def test_a_copy_that_came_after_the_acknowledgement_is_an_orphan(stage: Stage) -> None:
    """RACES 24: looked for every ten seconds at most."""
    message = stage.message("m1")
    (cold,) = await stage.route(message)
    await stage.online.ack(BOB, ["m1"])
    await stage.cold.put([Queued(message, cold.sequence, cold.queued_at)])
    assert await stage.online.orphans(10) == []
    stage.clock.advance(61)
    assert await stage.online.orphans(10) == [(BOB, "m1")]
    assert await stage.online.orphans(10) == [(BOB, "m1")], "until somebody has done it"
    await stage.online.forget_orphans(EVE, ["m1"])
    assert await stage.online.orphans(10) == [(BOB, "m1")], "nobody else's"
    await stage.online.forget_orphans(BOB, ["m1"])
    assert await stage.online.orphans(10) == []


async def test_a_database_with_a_name_is_one_of_its_own(
    emulator: Server, stores: FirestoreStores, clock: ManualClock, tmp_path: Path
) -> None:
    """Two routers in one project, in two databases, know nothing of each other."""
    named = FirestoreStores(tmp_path / "named")
    named.project, named.database = stores.project, "mail-eu"
    async with staged(named, clock) as there, staged(stores, clock) as here:
        assert await there.go("cold") is Outcome.COLD
        await there.connect()
        assert await there.go("hot") is Outcome.HOT
        assert await there.ids() == ["cold", "hot"]
        assert (await here.ids(), await here.online.connections(BOB)) == ([], [])
        assert [user.user for user in await there.online.hot_users("", 10)] == [BOB]
        await there.queue.acknowledge(BOB, ["cold", "hot"])
        assert (await there.ids(), await there.in_cold(), await there.hot()) == ([], [], [])


async def test_a_migration_lease_of_a_clock_that_was_ahead_keeps_no_user(stage: Stage) -> None:
    await moved_by_a_wrong_clock(stage)
    for seconds in (61, 3601, 3601, 61):
        stage.clock.advance(seconds)
        await stage.sweeper.sweep()
    assert (await documents(stage))["users"] == 0
