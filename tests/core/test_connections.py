"""Connections, pokes and what follows when the last one goes; over the real embedded components."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from router.config import Limits
from router.core import disconnection
from router.core.challenges import ANSWER_SECONDS, PAUSE_SECONDS, STEP_SECONDS, WAIT_SECONDS
from router.core.connections import (
    CLOSE_PAUSE_SECONDS,
    DISCONNECTED,
    FORGOTTEN,
    GOING_AWAY,
    KEYS_SECONDS,
    REGISTERING,
    REPLACED,
    TOKEN_EXPIRED,
    TRY_AGAIN_LATER,
)
from router.errors import Draining, TooManyConnections, Unavailable
from router.messages import Connection, Outcome, QueueTotals
from tests.contract.stage import BOB, EVE, Socket, Stage, until
from tests.support.clock import ended
from tests.support.pipelines import eventually

pytestmark = pytest.mark.anyio
LIMIT = Limits().connections_per_user


@asynccontextmanager
async def running(stage: Stage) -> AsyncIterator[None]:
    task = asyncio.create_task(stage.manager.run())
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Owing(Socket):
    """Its peer has not answered a ping yet."""

    def ping(self) -> None:
        super().ping()
        self.silent_seconds = 0.01


async def test_mail_before_registration_is_poked_for(stage: Stage) -> None:
    """RACES 12."""
    await stage.go("m1")
    socket, quiet = Socket(), Socket()
    async with running(stage):
        await stage.manager.connect(BOB, socket, None)
        await stage.manager.connect(EVE, quiet, None)
        await until(lambda: socket.pokes == 1)
        await stage.ids()
        await stage.go("m2")
        await until(lambda: socket.pokes == 2)
    assert quiet.pokes == 0
    assert b'router_pokes_total{kind="heard"} 1.0' in stage.factory.metrics.render(), "the first was no poke of the bus"


async def test_one_poke_until_somebody_fetches(stage: Stage) -> None:
    phone, laptop = Socket(), Socket()
    async with running(stage):
        await stage.manager.connect(BOB, phone, None)
        await stage.manager.connect(BOB, laptop, None)
        for number in range(5):
            await stage.go(f"m{number}")
        await until(lambda: phone.pokes == laptop.pokes == 1)
        await stage.ids()
        await stage.go("m5")
        await until(lambda: phone.pokes == laptop.pokes == 2)


async def test_a_device_that_joins_is_poked_from_then_on(stage: Stage) -> None:
    phone, laptop = Socket(), Socket()
    async with running(stage):
        await stage.manager.connect(BOB, phone, None)
        await stage.go("m1")
        await stage.queue.acknowledge(BOB, ["m1"])
        await stage.manager.connect(BOB, laptop, None)
        await stage.go("m2")
        await until(lambda: laptop.pokes == 1)


async def test_a_client_that_does_not_read_holds_up_only_itself(stage: Stage) -> None:
    """RACES 19."""
    read = asyncio.Event()

    class Stuck(Socket):
        async def poke(self) -> None:
            await read.wait()
            await super().poke()

    stuck, other = Stuck(), Socket()
    async with running(stage):
        await stage.manager.connect(BOB, stuck, None)
        await stage.manager.connect(BOB, other, None)
        for number in range(3):
            await stage.go(f"m{number}")
            await stage.ids()
            await until(lambda expected=number + 1: other.pokes == expected)  # type: ignore[misc]  # a loop's value
        read.set()
        await until(lambda: stuck.pokes == 2)


async def test_ten_thousand_come_back_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 20: a bounded number registers at a time, each exactly once, and everybody with mail is poked."""
    users = [f"urn:sm:user:{number}" for number in range(10_000)]
    waiting = users[::10]
    for user in waiting:
        await stage.go(f"mail of {user}", user)
    connect, under_way, most, calls = stage.online.connect, 0, 0, 0

    async def watched(connection: Connection, limit: int) -> bool:
        nonlocal under_way, most, calls
        under_way, calls = under_way + 1, calls + 1
        most = max(most, under_way)
        try:
            return await connect(connection, limit)
        finally:
            under_way -= 1

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): watched(connection, limit)
    )
    sockets = {user: Socket() for user in users}
    tracemalloc.start()
    connections = await asyncio.gather(*(stage.manager.connect(user, sockets[user], None) for user in users))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await until(lambda: all(sockets[user].pokes == 1 for user in waiting))
    assert sum(socket.pokes for socket in sockets.values()) == len(waiting)
    assert (most, calls) == (REGISTERING, len(users))
    assert len({connection.id for connection in connections}) == stage.manager.statistics().connections == len(users)
    assert await stage.online.online() == QueueTotals(messages=len(users), users=len(users))
    assert held < 4096 * len(users), "bytes a connection"
    assert peak < 3 * held, "the crowd costs no more than a small multiple of what stays"
    for user in waiting:
        assert await stage.ids(user) == [f"mail of {user}"]


async def test_one_users_flood_costs_the_store_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 37, 51: beyond the limit, a node asks once whether the sockets live, lets as many wait for that as may be
    connected, and refuses the others without asking; closing one makes room."""
    sockets = [Socket() for _ in range(LIMIT)]
    first, *_ = [await stage.manager.connect(BOB, socket, None) for socket in sockets]
    connect, calls = stage.online.connect, 0

    async def counted(connection: Connection, limit: int) -> bool:
        nonlocal calls
        calls += 1
        return await connect(connection, limit)

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): counted(connection, limit)
    )
    for turn in (1, 2):
        flood = [asyncio.create_task(stage.manager.connect(BOB, Socket(), None)) for _ in range(1000)]
        await until(lambda flood=flood: sum(one.done() for one in flood) == 1000 - LIMIT)  # type: ignore[misc]  # a loop's
        await until(lambda turn=turn: all(socket.pings == turn for socket in sockets))  # type: ignore[misc]  # a loop's
        stage.clock.advance(ANSWER_SECONDS)
        refused = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(one) for one in refused} == {TooManyConnections}
        with pytest.raises(TooManyConnections):
            await stage.manager.connect(BOB, Socket(), None)
        stage.clock.advance(PAUSE_SECONDS)
    assert (calls, stage.manager.statistics().connections) == (0, LIMIT)
    assert {(socket.pings, *socket.codes) for socket in sockets} == {(2,)}
    await stage.manager.disconnect(first)
    await stage.manager.connect(BOB, Socket(), None)
    await stage.manager.connect(EVE, Socket(), None)
    assert (calls, stage.manager.statistics().connections) == (2, LIMIT + 1)


async def test_whom_the_store_refuses_is_not_held(stage: Stage) -> None:
    """RACES 37: the other connections are on other nodes, which renew them when they are asked."""
    others = [Connection(BOB, f"elsewhere{number}", "elsewhere", 0) for number in range(LIMIT)]
    for other in others:
        await stage.online.connect(other, LIMIT)
    bus = await stage.factory.poke_bus()
    entering = asyncio.create_task(stage.manager.connect(BOB, Socket(), None))
    async with asyncio.timeout(60):
        assert await anext(bus.listen("elsewhere")) == ["?" + BOB]
    stage.clock.advance(1)
    assert await stage.online.renew(others) == []
    stage.clock.advance(WAIT_SECONDS)
    with pytest.raises(TooManyConnections):
        await entering
    assert (stage.manager.statistics().connections, len(await stage.online.connections(BOB))) == (0, LIMIT)


async def test_a_half_open_socket_gives_way_at_once_if_it_owes_an_answer(stage: Stage) -> None:
    """RACES 51: a ping of before has not been answered, so nobody is waited for; the user is online all the while."""
    sockets = [Socket() for _ in range(LIMIT)]
    for socket in sockets:
        await stage.manager.connect(BOB, socket, None)
        socket.silent_seconds = 15
    assert await stage.go("m1") is Outcome.HOT
    await stage.manager.connect(BOB, new := Socket(), None)
    await until(lambda: all(socket.codes == [REPLACED] for socket in sockets))
    assert (stage.manager.statistics().connections, len(await stage.online.connections(BOB))) == (1, 1)
    stage.clock.advance(WAIT_SECONDS)
    await stage.factory.tasks.settled()
    assert (await stage.hot(), await stage.in_cold(), new.pokes, new.codes) == (["m1"], [], 1, [])


async def test_a_heartbeat_keeps_no_socket_that_is_being_asked(stage: Stage) -> None:
    """RACES 51: it renews the others; those who answer are renewed when they have."""
    sockets = [Socket() for _ in range(LIMIT)]
    connections = [await stage.manager.connect(BOB, socket, None) for socket in sockets]
    eve = await stage.manager.connect(EVE, Socket(), None)
    before = {one.id: one.lease_until for one in await stage.online.connections(BOB)}
    entering = asyncio.create_task(stage.manager.connect(BOB, Socket(), None))
    await until(lambda: all(socket.pings for socket in sockets))
    sockets[0].silent_seconds = ANSWER_SECONDS
    stage.clock.advance(1)
    await stage.manager.renew()
    assert {one.id: one.lease_until for one in await stage.online.connections(BOB)} == before
    (renewed,) = await stage.online.connections(EVE)
    assert renewed.lease_until == max(before.values()) + 1_000_000, eve.id
    stage.clock.advance(1)
    newcomer = await entering
    found = {one.id: one.lease_until for one in await stage.online.connections(BOB)}
    assert found.keys() == before.keys() - {connections[0].id} | {newcomer.id}
    assert min(found.values()) > max(before.values())


async def test_those_who_answer_early_are_renewed_early(stage: Stage) -> None:
    """RACES 51: a node waits for the answers that are owed, and no longer: the node that asks may be far."""
    sockets = [Owing() for _ in range(2)]
    async with running(stage):
        for socket in sockets:
            await stage.manager.connect(BOB, socket, None)
        before = await stage.online.connections(BOB)
        await (await stage.factory.poke_bus()).publish([(stage.factory.node, "?" + BOB)])
        await until(lambda: all(socket.pings for socket in sockets))
        sockets[0].silent_seconds = 0
        stage.clock.advance(STEP_SECONDS)
        for _ in range(10):
            await asyncio.sleep(0)
        assert await stage.online.connections(BOB) == before, "one owes its answer"
        sockets[1].silent_seconds = 0
        stage.clock.advance(STEP_SECONDS)
        await stage.factory.tasks.settled()
        found = await stage.online.connections(BOB)
    assert {one.lease_until - old.lease_until for one, old in zip(found, before, strict=True)} == {
        int(2 * STEP_SECONDS * 1e6)
    }


async def test_whom_the_store_has_forgotten_registers_again_when_asked(stage: Stage) -> None:
    """RACES 17, 51: and not with the next heartbeat, until which its user's mail would go past it."""
    async with running(stage):
        connection = await stage.manager.connect(BOB, socket := Socket(), None)
        await stage.online.disconnect([connection])
        assert await stage.go("m1") is Outcome.COLD
        await (await stage.factory.poke_bus()).publish([(stage.factory.node, "?" + BOB)])
        await until(lambda: socket.pings == 1)
        stage.clock.advance(ANSWER_SECONDS)
        await until(lambda: socket.pokes == 1)
        assert [one.id for one in await stage.online.connections(BOB)] == [connection.id]


async def test_half_open_sockets_are_removed_also_if_no_newcomer_takes_their_place(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 51: the newcomer's node dies after it has asked: the mail moves as if the socket had ended by itself."""
    async with running(stage):
        await stage.manager.connect(BOB, silent := Socket(), None)
        assert await stage.go("m1") is Outcome.HOT
        silent.silent_seconds = ANSWER_SECONDS
        await (await stage.factory.poke_bus()).publish([(stage.factory.node, "?" + BOB)])
        await until(lambda: silent.codes == [REPLACED])
        assert await stage.hot() == ["m1"], "there was time for a newcomer"
        stage.clock.advance(WAIT_SECONDS)
        await stage.factory.tasks.settled()
    assert (await stage.in_cold(), await stage.pushed(), await stage.online.connections(BOB)) == (["m1"], ["m1"], [])


async def test_a_challenge_that_cannot_be_made_is_a_refusal(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 51: the store, or the bus, is down just then."""

    async def fail(*_: object) -> None:
        raise Unavailable("simulated")

    for number in range(LIMIT):
        await stage.online.connect(Connection(BOB, f"elsewhere{number}", "elsewhere", 0), LIMIT)
    monkeypatch.setattr(type(await stage.factory.poke_bus()), "publish", fail)
    with pytest.raises(TooManyConnections):
        await stage.manager.connect(BOB, Socket(), None)
    assert stage.manager.statistics().connections == 0


async def test_a_socket_that_is_being_opened_is_not_taken_for_silent(stage: Stage) -> None:
    """RACES 51: one that has just come, and one that left while the others were asked."""
    sockets = [Socket() for _ in range(LIMIT)]
    connections = [await stage.manager.connect(BOB, socket, None) for socket in sockets]
    entering = asyncio.create_task(stage.manager.connect(BOB, Socket(), None))
    await until(lambda: all(socket.pings for socket in sockets))
    sockets[0].silent_seconds = ANSWER_SECONDS
    await stage.manager.disconnect(connections[0])
    await stage.manager.connect(BOB, late := Socket(), None)
    stage.clock.advance(ANSWER_SECONDS)
    with pytest.raises(TooManyConnections):
        await entering
    assert [socket.codes for socket in (*sockets, late)] == [[]] * (LIMIT + 1)


async def test_a_registration_that_is_not_answered_leaves_no_presence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail would go hot, and wait for a socket that was never opened, until the lease ends."""
    register = stage.online.connect

    async def unanswered(connection: Connection, limit: int) -> bool:
        await register(connection, limit)
        assert len(await stage.online.connections(BOB)) == 1
        raise Unavailable("simulated")

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): unanswered(connection, limit)
    )
    with pytest.raises(Unavailable):
        await stage.manager.connect(BOB, Socket(), None)
    await stage.factory.tasks.settled()
    assert (stage.manager.statistics().connections, await stage.online.connections(BOB)) == (0, [])


async def test_the_last_disconnect_moves_the_mail(stage: Stage) -> None:
    """RACES 13: and the late close of an old socket does not."""
    async with running(stage):
        old = await stage.manager.connect(BOB, Socket(), None)
        new = await stage.manager.connect(BOB, Socket(), None)
        await stage.manager.disconnect(old)
        assert await stage.go("m1") is Outcome.HOT
        await stage.manager.disconnect(old)
        assert await stage.hot() == ["m1"]
        await stage.manager.disconnect(new)
        await stage.factory.tasks.settled()
    assert await stage.in_cold() == ["m1"]
    assert await stage.pushed() == ["m1"]
    nobody = "connections=0, users=0, poking=0, forgotten=0, expiries=0, tasks=0"
    assert repr(stage.manager) == f"<ConnectionManager of {stage.factory.node}: Statistics({nobody})>"


async def test_a_forgotten_connection_registers_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 17: the online store lost its presence while the socket lives, and could not be asked at first."""
    heartbeat, renew = stage.factory.config.online.heartbeat_seconds, stage.online.renew

    async def fail_once(connections: Sequence[Connection]) -> list[Connection]:
        if not stage.failures("online"):
            raise Unavailable("simulated")
        return await renew(connections)

    monkeypatch.setattr(type(stage.online), "renew", lambda _, connections: fail_once(connections))
    async with running(stage):
        connection = await stage.manager.connect(BOB, Socket(), None)
        await stage.online.disconnect([connection])
        assert await stage.go("m1") is Outcome.COLD
        stage.clock.advance(heartbeat)
        await until(lambda: stage.failures("online") == 1)
        stage.clock.advance(heartbeat)

        async def registered() -> bool:
            return await stage.online.connections(BOB) != []

        await eventually(stage, registered, ahead=2 * heartbeat)
        assert await stage.go("m2") is Outcome.HOT
        await until(lambda: stage.manager.statistics().forgotten == 0)


async def test_a_socket_that_goes_while_it_registers_again_leaves_no_presence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 17: its mail would go hot, for nobody, until the lease ends."""
    register = stage.online.connect
    connection = await stage.manager.connect(BOB, Socket(), None)
    await stage.online.disconnect([connection])

    async def too_late(connection: Connection, limit: int) -> bool:
        await stage.manager.disconnect(connection)
        return await register(connection, limit)

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): too_late(connection, limit)
    )
    await stage.manager.renew()
    assert (stage.manager.statistics().connections, await stage.online.connections(BOB)) == (0, [])


async def test_what_fails_when_a_socket_goes_is_left_to_lease_and_sweeper(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 15, 16."""

    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("simulated")

    phone, laptop = [await stage.manager.connect(user, Socket(), None) for user in (BOB, EVE)]
    for user in (BOB, EVE):
        await stage.go("m-" + user, user)
    with monkeypatch.context() as patch:
        patch.setattr(type(stage.online), "disconnect", fail)
        await stage.manager.disconnect(phone)
    with monkeypatch.context() as patch:
        patch.setattr(type(stage.online), "begin_move", fail)
        await stage.manager.disconnect(laptop)
        await stage.factory.tasks.settled()
    assert (stage.failures("online"), stage.manager.statistics().connections) == (2, 0)
    assert await stage.in_cold() == await stage.in_cold(EVE) == []
    stage.clock.advance(61)
    await stage.sweeper.sweep()
    assert (await stage.in_cold(), await stage.in_cold(EVE)) == (["m-" + BOB], ["m-" + EVE])


async def test_a_registration_whose_answer_was_lost_is_repeated(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 17: registered it is, but nobody knows that mail went past it. Others wait for none."""
    register, lost = stage.online.connect, [True, True]

    async def unanswered(connection: Connection, limit: int) -> bool:
        waiting = await register(connection, limit)
        if lost and lost.pop():
            raise Unavailable("simulated")
        return waiting

    bob, eve = Socket(), Socket()
    async with running(stage):
        connections = [await stage.manager.connect(BOB, bob, None), await stage.manager.connect(EVE, eve, None)]
        assert (await stage.ids(), await stage.ids(EVE)) == ([], [])
        await stage.online.disconnect(connections)
        assert [await stage.go("m1"), await stage.go("m2", EVE)] == [Outcome.COLD, Outcome.COLD]
        monkeypatch.setattr(
            type(stage.online), "connect", lambda _, connection, limit, replacing=(): unanswered(connection, limit)
        )
        with pytest.raises(Unavailable):
            await stage.manager.renew()
        assert (bob.pokes, eve.pokes) == (0, 0)
        await stage.manager.renew()
        await until(lambda: (bob.pokes, eve.pokes) == (1, 1))


async def test_whom_the_store_does_not_answer_keeps_no_other_from_renewing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 17: as where one shard is down; those on the others stay online, and come back."""
    monkeypatch.setattr("router.core.connections.RENEW_CONNECTIONS", 1)
    renew, register = stage.online.renew, stage.online.connect

    async def renew_others(connections: Sequence[Connection]) -> list[Connection]:
        if connections[0].user == BOB:
            raise Unavailable("simulated")
        return await renew(connections)

    async def register_others(connection: Connection, limit: int) -> bool:
        if connection.user == BOB:
            raise Unavailable("simulated")
        return await register(connection, limit)

    async with running(stage):
        connections = [await stage.manager.connect(user, Socket(), None) for user in (BOB, EVE)]
        with monkeypatch.context() as patch:
            patch.setattr(type(stage.online), "renew", lambda _, connections: renew_others(connections))
            for _ in range(4):
                stage.clock.advance(20)
                with pytest.raises(Unavailable):
                    await stage.manager.renew()
        assert [await stage.go("m1"), await stage.go("m2", EVE)] == [Outcome.COLD, Outcome.HOT]
        await stage.online.disconnect(connections)
        monkeypatch.setattr(
            type(stage.online), "connect", lambda _, connection, limit, replacing=(): register_others(connection, limit)
        )
        with pytest.raises(Unavailable):
            await stage.manager.renew()
        assert await stage.go("m3", EVE) is Outcome.HOT


async def test_an_expired_token_closes_its_connection(stage: Stage) -> None:
    sockets, other = [Socket(), Socket()], Socket()
    now = stage.clock.now()
    async with running(stage):
        for socket in sockets:
            await stage.manager.connect(BOB, socket, now + 5_000_000)
        await stage.manager.connect(BOB, other, now + 60_000_000)
        stage.clock.advance(6)
        await until(lambda: [socket.codes for socket in sockets] == [[TOKEN_EXPIRED]] * 2)
    assert other.codes == []


async def test_a_drain_closes_all_and_moves_their_mail(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 35: some at a time."""
    monkeypatch.setattr("router.core.connections.CLOSE_CONNECTIONS", 2)
    sockets = [Socket() for _ in range(3)]
    async with running(stage):
        for number, socket in enumerate(sockets):
            await stage.manager.connect(BOB if number else EVE, socket, None)
        await stage.go("m1")
        draining = asyncio.create_task(stage.manager.drain())
        while (await stage.online.online()).messages != 1:  # noqa: ASYNC110 - a store sets no event
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert sum(len(socket.codes) for socket in sockets) == 2
        await ended(stage.clock, draining)
        assert [socket.codes for socket in sockets] == [[GOING_AWAY]] * 3
        with pytest.raises(Draining):
            await stage.manager.connect(BOB, Socket(), None)
    assert (await stage.hot(), await stage.in_cold()) == ([], ["m1"])
    assert await stage.online.connections(BOB) == []


async def test_a_registration_that_a_drain_overtakes_leaves_no_presence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 35: the drain has removed the connection before the store got to add it."""
    register, drained = stage.online.connect, asyncio.Event()

    async def slow(connection: Connection, limit: int) -> bool:
        await drained.wait()
        return await register(connection, limit)

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): slow(connection, limit)
    )
    async with running(stage):
        connecting = asyncio.create_task(stage.manager.connect(BOB, Socket(), None))
        await until(lambda: stage.manager.statistics().connections == 1)
        draining = asyncio.create_task(stage.manager.drain())
        await until(lambda: stage.manager.statistics().connections == 0)
        drained.set()
        with pytest.raises(Draining):
            await connecting
        await ended(stage.clock, draining)
        await stage.factory.tasks.settled()
    assert await stage.online.connections(BOB) == []


async def test_a_registration_that_an_operator_overtakes_leaves_no_presence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store knows the connection, and its node is still waiting for the answer when it is told to close it."""
    register, answered = stage.online.connect, asyncio.Event()

    async def slow(connection: Connection, limit: int) -> bool:
        waiting = await register(connection, limit)
        await answered.wait()
        return waiting

    monkeypatch.setattr(
        type(stage.online), "connect", lambda _, connection, limit, replacing=(): slow(connection, limit)
    )
    bus = await stage.factory.poke_bus()
    async with running(stage):
        connecting = asyncio.create_task(stage.manager.connect(BOB, Socket(), None))
        while not (found := await stage.online.connections(BOB)):  # noqa: ASYNC110 - a store sets no event
            await asyncio.sleep(0)
        await bus.publish([(stage.factory.node, disconnection.MARK + found[0].id)])
        await until(lambda: stage.manager.statistics().connections == 0)
        answered.set()
        with pytest.raises(Draining):
            await connecting
        await until(lambda: stage.manager.statistics().tasks == 0)
    assert await stage.online.connections(BOB) == []


async def test_whom_an_operator_disconnects_is_offline_before_their_peer_answers(stage: Stage) -> None:
    """A half-open socket takes no close frame, and the mail does not wait for it."""

    class Deaf(Socket):
        def __init__(self) -> None:
            super().__init__()
            self.takes = asyncio.Event()

        async def close(self, code: int, reason: str) -> None:
            await super().close(code, reason)
            await self.takes.wait()

    socket = Deaf()
    bus = await stage.factory.poke_bus()
    async with running(stage):
        connection = await stage.manager.connect(BOB, socket, None)
        assert await stage.go("m1") is Outcome.HOT
        await bus.publish([(stage.factory.node, disconnection.MARK + connection.id)])
        while await stage.in_cold() != ["m1"]:  # noqa: ASYNC110 - a store sets no event
            await asyncio.sleep(0)
        assert await stage.online.connections(BOB) == []
        assert socket.codes == [DISCONNECTED]
        socket.takes.set()
        await until(lambda: stage.manager.statistics().tasks == 0)


async def test_one_user_over_the_limit_lets_the_others_renew(stage: Stage) -> None:
    """RACES 17: after the store lost its presence, a user has come back with more connections elsewhere."""
    bob, eve = Socket(), Socket()
    async with running(stage):
        connections = [await stage.manager.connect(BOB, bob, None), await stage.manager.connect(EVE, eve, None)]
        await stage.online.disconnect(connections)
        for number in range(LIMIT):
            await stage.connect(BOB, f"elsewhere{number}")
        await stage.manager.renew()
        assert [connection.user for connection in await stage.online.connections(EVE)] == [EVE]
        await until(lambda: bob.codes == [TRY_AGAIN_LATER])
    assert eve.codes == []


async def test_connections_that_are_gone_are_forgotten_before_their_tokens_expire(stage: Stage) -> None:
    far = stage.clock.now() + 10**12
    async with running(stage):
        await stage.manager.connect(BOB, Socket(), far)
        for _ in range(3 * FORGOTTEN):
            await stage.manager.disconnect(await stage.manager.connect(BOB, Socket(), far))
    assert stage.manager.statistics().expiries < 2 * FORGOTTEN


async def test_a_withdrawn_key_closes_its_connections_some_at_a_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 50: however many there are; those of other keys stay, and who comes with it later is found too."""
    monkeypatch.setattr("router.core.connections.CLOSE_CONNECTIONS", 2)
    trusted = {b"old", b"new"}
    old, new = [Socket() for _ in range(5)], Socket()
    run = asyncio.create_task(stage.manager.run(trusted.__contains__))
    for socket in old:
        await stage.manager.connect(BOB, socket, None, b"old")
    gone = await stage.manager.connect(BOB, Socket(), None, b"old")
    await stage.manager.disconnect(gone)
    await stage.manager.connect(EVE, new, None, b"new")
    trusted.discard(b"old")
    for pause, closed in (
        (KEYS_SECONDS, 2),
        (CLOSE_PAUSE_SECONDS, 4),
        (CLOSE_PAUSE_SECONDS, 5),
        (KEYS_SECONDS, 5),
    ):
        await settle()
        stage.clock.advance(pause)
        await settle()
        assert sum(len(socket.codes) for socket in old) == closed
    await stage.manager.connect(BOB, late := Socket(), None, b"old")
    stage.clock.advance(KEYS_SECONDS)
    await settle()
    assert [socket.codes for socket in (*old, late)] == [[TOKEN_EXPIRED]] * 6
    assert new.codes == []
    run.cancel()
    await asyncio.wait([run])


async def test_tokens_that_expire_together_end_some_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.core.connections.CLOSE_CONNECTIONS", 2)
    sockets, far = [Socket() for _ in range(5)], stage.clock.now() + 5_000_000
    for socket in sockets:
        await stage.manager.connect(BOB, socket, far)
    stage.clock.advance(5)
    for closed in (2, 4, 5, 5):
        stage.manager.close_expired()
        await settle()
        assert sum(len(socket.codes) for socket in sockets) == closed


async def settle() -> None:
    """Let everything that can go on now do so."""
    for _ in range(20):
        await asyncio.sleep(0)
