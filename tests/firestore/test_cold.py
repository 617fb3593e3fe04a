"""The cold queue in Firestore: what its calls cost, what it keeps, and whole and partial failures of its writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import grpc
import pytest
from grpc.aio import Metadata
from msgspec.structs import replace

from router.backends.firestore.backend import FirestoreBackend
from router.backends.firestore.client import Client
from router.backends.firestore.cold import CONTENT_BYTES, FirestoreColdQueue
from router.backends.firestore.documents import BARE
from router.backends.firestore.wire import Write
from router.backends.firestore.write_batches import CALLS
from router.errors import Refused, Unavailable
from router.messages import Lane, Message, Outcome, Queued, Settled
from tests.contract.stage import BOB, EVE, PAGE_BYTES, Stage, names, until
from tests.support.backends import opened
from tests.support.pipelines import routed, running

pytestmark = pytest.mark.anyio
TOO_LARGE = 1_100_000
SOON = 10.0
"""Seconds, for what would never end."""


async def client_of(stage: Stage) -> Client:
    return (await opened(stage.factory, FirestoreBackend)).client


def queued(stage: Stage, id_: str, user: str = BOB, *, size: int = 9, lane: Lane = Lane.NORMAL) -> Queued:
    stage.clock.time += 1
    now = stage.clock.now()
    return Queued(Message(id_, user, b"x" * size, lane, False, now), now, now)


def lost(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(), "forced")


def deny(patch: pytest.MonkeyPatch, id_: str) -> None:
    """No write to the message ``id_`` is allowed."""
    write, denied = Client.batch_write, (grpc.StatusCode.PERMISSION_DENIED.value[0], "no")

    def meant(one: Write) -> bool:
        return bool((one.update.name or one.delete).endswith(f"/{id_}"))

    async def write_others(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        done = await write(client, [one for one in writes if not meant(one)], seconds)
        return [denied if meant(one) else done.pop(0) for one in writes]

    patch.setattr(Client, "batch_write", write_others)


# What it costs.


async def test_offline_mail_costs_one_write_one_delete_and_a_read_for_each_page(beside: Stage) -> None:
    client = await client_of(beside)
    for number in range(25):
        await beside.producer.publish([beside.message(f"m{number:02}")])
    async with running(beside):
        await routed(beside)
    assert client.statistics.documents_written == 25
    assert client.statistics.gets == client.statistics.commits == client.statistics.queries == 0
    batch = await beside.ids(limit=10)
    assert (client.statistics.queries, client.statistics.documents_read) == (1, 11), (
        "one page, and whether there is more"
    )
    while batch:
        await beside.queue.acknowledge(BOB, batch)
        batch = await beside.ids(limit=10)
    assert client.statistics.documents_written == 50
    assert client.statistics.queries == 4, "three pages, and one that was empty"
    assert client.statistics.gets == client.statistics.commits == 0
    assert b'router_firestore_operations_total{operation="documents_written"} 50.0' in beside.factory.metrics.render()


async def test_a_user_with_nothing_cold_costs_no_call(beside: Stage) -> None:
    await beside.connect()
    assert await beside.ids() == []
    client = await client_of(beside)
    before = repr(client.statistics)
    for number in range(3):
        assert await beside.go(f"m{number}") is Outcome.HOT
        assert await beside.ids() == [f"m{number}"]
        await beside.queue.acknowledge(BOB, [f"m{number}"])
        assert await beside.ids() == []
    assert repr(client.statistics) == before


async def test_nothing_costs_no_call(stage: Stage) -> None:
    """A request that names no document is not sent."""
    client = await client_of(stage)
    before = repr(client.statistics)
    await stage.cold.update_places([])
    assert await stage.cold.put([]) == []
    await stage.cold.delete(BOB, ["\ud800"])
    assert await stage.online.acked(BOB, ["\ud800"]) == set()
    assert await stage.online.ack(BOB, ["\ud800"]) == []
    assert repr(client.statistics) == before


async def test_a_page_costs_the_page_and_not_the_queue(beside: Stage) -> None:
    """RACES 27, 34: by messages, and by bytes."""
    client = await client_of(beside)
    assert await beside.cold.put([queued(beside, f"m{number:03}", size=1000) for number in range(300)]) == []
    page = await beside.cold.read(BOB, 10, PAGE_BYTES)
    assert (len(page.messages), bool(page.more), client.statistics.documents_read) == (10, True, 11)
    page = await beside.cold.read(BOB, 200, 3500, page.messages[-1].place)
    assert (names(page.messages), bool(page.more)) == (["m010", "m011", "m012"], True)
    assert client.statistics.documents_read < 150, "nobody read on when the page was full"


async def test_writes_that_wait_are_one_call(beside: Stage) -> None:
    client = await client_of(beside)
    users = [f"urn:sm:user:u{number}" for number in range(300)]
    put = [beside.cold.put([queued(beside, f"m{number}", user)]) for number, user in enumerate(users)]
    assert await asyncio.gather(*put) == [[]] * 300
    assert client.statistics.batch_writes < 10
    await asyncio.gather(*(beside.cold.delete(user, [f"m{number}"]) for number, user in enumerate(users)))
    assert client.statistics.batch_writes < 20
    assert (await beside.cold.totals(None)).messages == 0


async def test_a_write_that_comes_as_all_calls_end_is_carried_out(
    beside: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 11: whoever waited for the first of them writes again at once, and nobody else does."""
    write, held, end = Client.batch_write, asyncio.Semaphore(0), asyncio.Event()

    async def hold(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        done = await write(client, writes, seconds)
        held.release()
        await end.wait()
        return done

    async def put(*ids: str) -> None:
        for id_ in ids:
            assert await beside.cold.put([queued(beside, id_)]) == []

    monkeypatch.setattr(Client, "batch_write", hold)
    async with asyncio.timeout(SOON):
        async with asyncio.TaskGroup() as group:
            for number in range(CALLS):
                group.create_task(put(f"m{number}", *([] if number else ["again"])))
                await held.acquire()
            end.set()
    assert len(await beside.in_cold()) == CALLS + 1


async def test_a_call_is_bounded_by_its_bytes_and_its_writes(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    write, sizes = Client.batch_write, list[tuple[int, int]]()

    async def measure(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        sizes.append((len(writes), sum(one.ByteSize() for one in writes)))
        return await write(client, writes, seconds)

    monkeypatch.setattr(Client, "batch_write", measure)
    messages = [queued(beside, f"large {number}", size=700_000) for number in range(30)]
    messages += [queued(beside, f"small {number}") for number in range(1100)]
    assert await beside.cold.put(messages) == []
    assert max(count for count, _ in sizes) == 500
    assert max(size for _, size in sizes) < 4 * 1024 * 1024
    assert sum(count for count, _ in sizes) == 1130


async def test_a_place_is_changed_without_the_envelope(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 10, 27: hundreds of places are updated at once, and all their envelopes would be too much for a call."""
    size, now = 100_000, beside.clock.now()
    messages = [Queued(queued(beside, f"m{n}", size=size).message, now + 9 + n, now, unreported=True) for n in range(3)]
    assert await beside.cold.put(messages) == []
    get, write, moved = Client.get, Client.batch_write, list[int]()

    async def measure_get(client: Client, paths: Iterable[str], seconds: float, *more: Sequence[str]) -> Any:
        found = await get(client, paths, seconds, *more)
        moved.append(sum(one.ByteSize() for one in found.values()))
        return found

    async def measure_write(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        moved.append(sum(one.ByteSize() for one in writes))
        return await write(client, writes, seconds)

    monkeypatch.setattr(Client, "get", measure_get)
    monkeypatch.setattr(Client, "batch_write", measure_write)
    placed = [replace(one, sequence=one.sequence - 5, unreported=index == 0) for index, one in enumerate(messages)]
    await beside.cold.update_places(placed)
    assert (len(moved), sum(moved) < size) == (2, True)
    assert await beside.cold.put(placed) == []
    assert moved[3] < CONTENT_BYTES, "they are there already, and are compared"
    assert names(await beside.cold.unreported(now, 10)) == ["m0"]
    kept = (await beside.cold.read(BOB, 10, PAGE_BYTES)).messages
    assert kept == [replace(one, unreported=False, announced=True) for one in placed]


# What it keeps.


@pytest.mark.parametrize("name", ["/", ".", "..", "__x__", "{}", "a/b//c", "%2F", EVE, "urn:sm:user:é\u2603"])
async def test_odd_names_are_strangers_to_one_another(beside: Stage, name: str) -> None:
    """RACES 39: users and ids."""
    assert (
        await beside.cold.put([queued(beside, name, name), queued(beside, "own", name), queued(beside, name, BOB)])
        == []
    )
    assert names((await beside.cold.read(name, 10, PAGE_BYTES)).messages) == [name, "own"]
    await beside.cold.delete(name, [name, "unknown", "x" * 5000, "\ud800"])
    assert names((await beside.cold.read(name, 10, PAGE_BYTES)).messages) == ["own"]
    assert names((await beside.cold.read(BOB, 10, PAGE_BYTES)).messages) == [name]
    assert [user for user, _ in await beside.cold.oldest(5)] == [name, BOB]


async def test_what_is_past_retention_is_found_page_by_page(beside: Stage) -> None:
    old = [queued(beside, f"old {number}", lane=Lane.EXPRESS) for number in range(25)]
    before = beside.clock.now()
    beside.clock.advance(31 * 86_400)
    new = [queued(beside, f"new {number}") for number in range(3)]
    assert await beside.cold.put([*new, *old]) == []
    expired = list[Queued]()
    while found := await beside.cold.expired(before, 10):
        assert await beside.cold.expire(found) == found
        expired += found
    assert sorted(names(expired)) == sorted(names(old))
    assert all(not one.message.envelope and one.message.recipient == BOB for one in expired)
    assert (await beside.cold.totals(BOB)).messages == 3


@pytest.mark.parametrize("limit", range(1, 8))
async def test_a_page_passes_over_nothing_in_one_place_with_another(beside: Stage, limit: int) -> None:
    """RACES 4, 10: two that came to cold by different ways may have one place, which a query between them must know."""
    places = {"a": 10, "b": 20, "c": 20, "d": 20, "e": 20, "f": 30, "g": 40}
    new = [replace(queued(beside, id_), sequence=place) for id_, place in places.items()]
    assert await beside.cold.put(new) == []
    page = await beside.cold.read(BOB, limit, PAGE_BYTES)
    assert (names(page.messages), bool(page.more)) == (list(places)[:limit], limit < len(places))


async def test_ids_are_looked_for_by_name_and_without_envelopes(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the queue would be paid for, and come over the network."""
    client, asked, get = await client_of(beside), list[Sequence[str]](), Client.get
    assert await beside.cold.put([queued(beside, f"m{number}") for number in range(30)]) == []

    async def watch(client: Client, paths: Iterable[str], seconds: float, select: Sequence[str] = ()) -> Any:
        asked.append(select)
        return await get(client, paths, seconds, select)

    monkeypatch.setattr(Client, "get", watch)
    await beside.queue.acknowledge(BOB, ["unknown", "m7"])
    assert asked == [BARE]
    assert "envelope" not in BARE
    assert (client.statistics.queries, client.statistics.documents_read) == (0, 1)


async def test_retention_is_looked_at_once_a_minute(beside: Stage) -> None:
    """Each look costs reads, though nothing is there."""
    client, before = await client_of(beside), beside.clock.now()
    assert await beside.cold.expired(before, 10) == []
    looked = client.statistics.queries
    assert looked > 0
    assert await beside.cold.expired(before, 10) == []
    assert client.statistics.queries == looked
    beside.clock.advance(61)
    assert await beside.cold.expired(before, 10) == []
    assert client.statistics.queries == 2 * looked


async def test_firestore_itself_deletes_nothing_before_its_time(beside: Stage) -> None:
    cold = beside.cold
    assert isinstance(cold, FirestoreColdQueue)
    message = queued(beside, "m1")
    until = cold._written(message).update.fields["expire_at"].timestamp_value.ToMicroseconds()
    assert until >= message.queued_at + 31 * 86_400 * 1_000_000


async def test_totals_and_the_oldest(beside: Stage) -> None:
    for number in range(3):
        await beside.cold.put([queued(beside, f"eve {number}", EVE, size=10)])
    await beside.cold.put([queued(beside, "bob", BOB, size=5)])
    everyone = await beside.cold.totals(None)
    eve, bob = await beside.cold.totals(EVE), await beside.cold.totals(BOB)
    assert (everyone.messages, everyone.bytes, everyone.oldest_at) == (4, 35, eve.oldest_at)
    assert (eve.messages, eve.bytes, bob.messages, bob.bytes) == (3, 30, 1, 5)
    assert bob.oldest_at - eve.oldest_at == 3
    assert await beside.cold.oldest(9) == [(EVE, eve), (BOB, bob)]
    assert await beside.cold.oldest(1) == [(EVE, eve)]
    assert (await beside.cold.totals("urn:sm:user:nobody")).oldest_at == 0


# What fails.


async def test_only_the_unconfirmed_part_is_written_again(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7: each write has its own status."""
    write, calls = Client.batch_write, list[list[str]]()

    async def refuse_a_part(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        calls.append([one.update.name.rpartition("/")[2] for one in writes])
        if len(calls) > 2:
            return await write(client, writes, seconds)
        done = await write(client, [one for one in writes if not one.update.name.endswith("m2")], seconds)
        codes = {1: grpc.StatusCode.ABORTED, 2: grpc.StatusCode.RESOURCE_EXHAUSTED}
        failed = (codes[len(calls)].value[0], "busy")
        return [failed if one.update.name.endswith("m2") else done.pop(0) for one in writes]

    monkeypatch.setattr(Client, "batch_write", refuse_a_part)
    assert await beside.cold.put([queued(beside, f"m{number}") for number in range(4)]) == []
    assert calls == [["m0", "m1", "m2", "m3"], ["m2"], ["m2"]]
    assert await beside.in_cold() == ["m0", "m1", "m2", "m3"]


async def test_what_is_not_confirmed_in_time_is_named(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 7: a permanent failure of one write, in words that say what to mend; the rest is written."""
    deny(monkeypatch, "m1")
    messages = [queued(beside, f"m{number}") for number in range(3)]
    assert await beside.cold.put(messages) == [messages[1]]
    assert await beside.in_cold() == ["m0", "m2"]
    with pytest.raises(Unavailable, match="the credentials lack a role"):
        await beside.cold.put([messages[1]])


async def test_the_store_is_told_of_no_place_that_cold_does_not_have(
    beside: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 7: two copies of an outage stand behind what was routed after them, and one of them cannot be moved yet."""
    messages = [beside.message(f"m{number}") for number in range(3)]
    routed = await beside.route(*messages)
    late = [
        Queued(message, one.sequence + 1000, one.queued_at, unreported=True)
        for message, one in zip(messages[:2], routed, strict=False)
    ]
    assert await beside.cold.put(late) == []
    await beside.store(messages[2], routed[2])
    beside.clock.advance(61)
    with monkeypatch.context() as patch:
        deny(patch, "m0")
        with pytest.raises(Unavailable, match="the credentials lack a role"):
            await beside.sweeper.sweep()
    assert await beside.in_cold() == ["m1", "m2", "m0"]
    assert await beside.ids() == ["m0", "m1", "m2"], "readers know its place"
    await beside.sweeper.sweep()
    assert await beside.in_cold() == await beside.ids() == ["m0", "m1", "m2"]
    assert await beside.cold.unreported(beside.clock.now(), 10) == []


async def test_retention_removes_what_it_can(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be deleted yet is tried again; what is gone is told of and counted."""
    messages = [queued(beside, f"m{number}") for number in range(3)]
    assert await beside.cold.put(messages) == []
    assert await beside.online.settle(messages) == Settled([], [])
    beside.clock.advance(31 * 86_400)
    with monkeypatch.context() as patch:
        deny(patch, "m1")
        with pytest.raises(Unavailable, match="the credentials lack a role"):
            await beside.sweeper.sweep()
    assert (await beside.cold.totals(None)).messages == 1
    assert beside.count("router_messages_dropped_total", reason="retention") == 2
    await beside.sweeper.sweep()
    assert (await beside.cold.totals(None)).messages == 0
    assert beside.count("router_messages_dropped_total", reason="retention") == 3
    for one in messages:
        assert await beside.go(one.message.id) is Outcome.DUPLICATE


async def test_a_write_whose_answer_was_lost_counts_as_written(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 1, 7: it is there when it is written again, and it is there once."""
    write, calls = Client.batch_write, 0

    async def lose_the_answer(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        nonlocal calls
        calls += 1
        done = await write(client, writes, seconds)
        if calls == 1:
            raise lost(grpc.StatusCode.DEADLINE_EXCEEDED)
        return done

    monkeypatch.setattr(Client, "batch_write", lose_the_answer)
    assert await beside.cold.put([queued(beside, "m1"), queued(beside, "m2")]) == []
    assert calls == 2
    assert await beside.in_cold() == ["m1", "m2"]


async def test_what_nobody_waits_for_is_not_tried_again(beside: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 24: it was handed back, and may be acknowledged and gone by then."""
    calls, go = list[list[str]](), asyncio.Event()

    async def fail(client: Client, writes: Sequence[Write], seconds: float) -> list[tuple[int, str]]:
        del client, seconds
        calls.append([one.update.name.rpartition("/")[2] for one in writes])
        await go.wait()
        if len(calls) == 1:
            raise lost(grpc.StatusCode.UNAVAILABLE)
        return [(0, "")] * len(writes)

    monkeypatch.setattr(Client, "batch_write", fail)
    abandoned = asyncio.create_task(beside.cold.put([queued(beside, "abandoned")]))
    wanted = asyncio.create_task(beside.cold.put([queued(beside, "wanted")]))
    await until(lambda: bool(calls))
    abandoned.cancel()
    await asyncio.wait([abandoned])
    go.set()
    assert await wanted == []
    assert calls == [["abandoned", "wanted"], ["wanted"]]


async def test_one_that_is_too_large_is_refused_and_the_others_are_written(beside: Stage) -> None:
    """RACES 7, 8: Firestore refuses the whole call for its sake, also what others wrote in the same call."""
    poison = queued(beside, "poison", size=TOO_LARGE)
    good = [queued(beside, f"m{number}") for number in range(7)]
    others = [beside.cold.put([queued(beside, f"e{number}", EVE)]) for number in range(20)]
    refused, *written = await asyncio.gather(
        beside.cold.put([*good[:3], poison, *good[3:]]), *others, return_exceptions=True
    )
    assert isinstance(refused, Refused)
    assert written == [[]] * 20
    assert await beside.in_cold() == names(good)
    assert len(await beside.in_cold(EVE)) == 20


async def test_one_that_is_too_large_is_a_dead_letter_and_holds_nobody_up(beside: Stage) -> None:
    """RACES 7, 8."""
    large = queued(beside, "poison", size=TOO_LARGE).message
    for message in (beside.message("m1"), large, beside.message("other", EVE), beside.message("m2")):
        await beside.producer.publish([message])
    async with running(beside):
        await routed(beside)
    assert await beside.letters() == [("poison", "attempts-exhausted")]
    assert (await beside.ids(), await beside.ids(EVE)) == (["m1", "m2"], ["other"])
