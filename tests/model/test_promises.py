"""A model of the queues, judged by the promises (docs/specification.md#promises).

Hypothesis chooses what happens, and where a pipeline or a migration is cut off; the components are the real ones.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from router.backends.embedded.backend import EmbeddedBackend
from router.messages import Connection, Delivery, Lane, Message, Move, Outcome, Queued, Routed
from tests.contract.stage import PAGE_BYTES, Stage, staged
from tests.support.backends import opened
from tests.support.clock import ManualClock
from tests.support.stores import EmbeddedStores, Stores

T = TypeVar("T")
USERS = ("urn:sm:user:ann", "urn:sm:user:{ben}")
user_names = st.sampled_from(USERS)
SHORT, LONG = 5, 45
ROOM = 1000
"""For ``limits.queue_messages``: more than any example sends."""


class Promises(RuleBasedStateMachine):
    """Two users, several devices, one pipeline that is cut off at any step, migrators that die."""

    one_loop: ClassVar[asyncio.AbstractEventLoop | None] = None
    """That of all examples, where each may not have its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.one_loop or asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        self.sent: dict[str, list[Message]] = {user: [] for user in USERS}
        self.unrouted: list[Message] = []
        self.routed_before: list[Message] = []
        self.acked: set[str] = set()
        self.dropped: set[str] = set()
        self.devices: list[Connection] = []
        self.count = 0

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def stores(self) -> Stores:
        """Where the queues of one example are."""
        return EmbeddedStores(Path(self.directory.name))

    @initialize()
    def start(self) -> None:
        opening = staged(self.stores(), self.clock, cap=ROOM, in_line=True)
        self.stage: Stage = self.run(self.stack.enter_async_context(opening))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        if self.loop is not self.one_loop:
            self.loop.close()
        self.directory.cleanup()

    @rule(user=user_names, express=st.booleans(), ephemeral=st.booleans(), keyed=st.booleans())
    def send(self, user: str, express: bool, ephemeral: bool, keyed: bool) -> None:
        self.count += 1
        lane = Lane.EXPRESS if express else Lane.NORMAL
        message = self.stage.message(f"m{self.count:04}", user, lane=lane, ephemeral=ephemeral, keyed=keyed)
        self.sent[user].append(message)
        self.accept(message)

    def accept(self, message: Message) -> None:
        self.unrouted.append(message)

    @rule(steps=st.integers(0, 4), batch=st.integers(1, 5))
    def route(self, steps: int, batch: int) -> None:
        """A pipeline takes the oldest messages and dies after ``steps`` of: route, put, settle, acknowledge."""
        taken = self.unrouted[:batch]
        if steps < 1 or not taken:
            return
        results = self.run(self.stage.online.route([Delivery(message, 0, 1) for message in taken]))
        owed = []
        for message, result in zip(taken, results, strict=True):
            if result.outcome in (Outcome.DROPPED_EXPIRED, Outcome.DROPPED_OFFLINE):
                assert message.ephemeral
                self.dropped.add(message.id)
            elif result.outcome is Outcome.COLD:
                owed.append(Queued(message, result.sequence, result.queued_at))
        if steps < 2:
            return
        self.run(self.stage.cold.put(owed))
        if steps < 3:
            return
        self.forget(self.run(self.stage.online.settle(owed)).acked)
        if steps < 4:
            return
        del self.unrouted[: len(taken)]
        self.routed_before += taken

    def forget(self, orphans: list[Queued]) -> None:
        for queued in orphans:
            self.run(self.stage.cold.delete(queued.message.recipient, [queued.message.id]))
            self.run(self.stage.online.forget_orphans(queued.message.recipient, [queued.message.id]))

    @rule(data=st.data())
    def redeliver(self, data: st.DataObject) -> None:
        """The ingress forgets that it was told, or a sender repeats what has a key."""
        if self.routed_before:
            self.repeat(data.draw(st.sampled_from(self.routed_before)))

    @rule(user=user_names, express=st.booleans(), keyed=st.booleans())
    def redeliver_what_has_just_left(self, user: str, express: bool, keyed: bool) -> None:
        """By chance alone, few redeliveries would be of what was acknowledged."""
        self.send(user, express, False, keyed)
        self.route(4, len(self.unrouted))
        self.fetch_and_acknowledge(user, 500, 0)
        if self.sent[user][-1] in self.routed_before:
            self.repeat(self.sent[user][-1])

    def repeat(self, message: Message) -> None:
        result = self.route_again(message)
        allowed = {Outcome.DUPLICATE, Outcome.ANNOUNCE}
        if message.ephemeral:
            allowed |= {Outcome.DROPPED_EXPIRED, Outcome.DROPPED_OFFLINE, Outcome.HOT}
        assert result.outcome in allowed

    def route_again(self, message: Message) -> Routed:
        (result,) = self.run(self.stage.route(message, attempt=2))
        return result

    @rule(user=user_names, limit=st.integers(1, 4), keep=st.integers(0, 4))
    def fetch_and_acknowledge(self, user: str, limit: int, keep: int) -> None:
        batch = self.fetch(user, limit)
        ids = [queued.message.id for queued in batch][: max(0, len(batch) - keep)]
        self.run(self.stage.queue.acknowledge(user, ids))
        self.acked.update(ids)

    @rule(user=user_names, limits=st.tuples(st.integers(1, 4), st.integers(1, 4)), keep=st.integers(0, 4))
    def fetch_and_follow(self, user: str, limits: tuple[int, int], keep: int) -> None:
        """The page is acknowledged with the call for the next one."""
        batch = self.fetch(user, limits[0])
        ids = [queued.message.id for queued in batch][: max(0, len(batch) - keep)]
        self.acked.update(ids)
        self.judge(user, self.run(self.stage.queue.next(user, ids, limits[1])))

    @rule(user=user_names)
    def acknowledge_in_hot_only(self, user: str) -> None:
        """The API dies between the two tiers: the client got no answer, but the id must not come back."""
        batch = self.fetch(user, 1)
        if batch:
            self.run(self.stage.online.ack(user, [batch[0].message.id]))
            self.acked.add(batch[0].message.id)

    def fetch(self, user: str, limit: int = 500) -> list[Queued]:
        return self.judge(user, self.run(self.stage.queue.fetch(user, limit)))

    def judge(self, user: str, batch: list[Queued]) -> list[Queued]:
        ids = [queued.message.id for queued in batch]
        assert len(ids) == len(set(ids)), "an id is in a batch once"
        assert not set(ids) & self.acked, "what was acknowledged does not come back"
        own = {message.id: message for message in self.sent[user]}
        assert set(ids) <= set(own), "nobody else's mail"
        for lane in Lane:
            got = [queued.message.id for queued in batch if queued.message.lane is lane]
            waiting = [
                message.id
                for message in self.sent[user]
                if message.lane is lane and not message.ephemeral and message.id not in self.acked
            ]
            kept = [id_ for id_ in got if not own[id_].ephemeral]
            assert kept == waiting[: len(kept)], "in order, and nothing left out"
        lanes = [queued.message.lane for queued in batch]
        assert lanes == sorted(lanes), "the express lane first"
        for queued in batch:
            assert not queued.message.ephemeral or self.clock.now() - queued.message.accepted_at < 10_000_000
        return batch

    @rule(user=user_names)
    def connect(self, user: str) -> None:
        self.count += 1
        device = Connection(user, f"d{self.count}", "node", self.clock.now())
        self.run(self.stage.online.connect(device, 1000))
        self.devices.append(device)

    @rule(data=st.data(), migrate=st.booleans())
    def disconnect(self, data: st.DataObject, migrate: bool) -> None:
        if self.devices:
            device = data.draw(st.sampled_from(self.devices))
            self.devices.remove(device)
            for user in self.run(self.stage.online.disconnect([device])):
                if migrate:
                    self.run(self.stage.migrator.migrate(user))

    @rule(user=user_names, put=st.booleans(), end=st.booleans())
    def migrator_dies(self, user: str, put: bool, end: bool) -> None:
        move = self.run(self.stage.online.begin_move(user, "dies", 2, PAGE_BYTES, online_too=True))
        if isinstance(move, Move) and put:
            self.run(self.stage.cold.put(move.messages))
            if end:
                self.run(self.stage.online.end_move(user, "dies", move.messages))

    @rule(user=user_names)
    def migrate_by_hand(self, user: str) -> None:
        self.run(self.stage.migrator.migrate(user, online_too=True))

    @rule(seconds=st.sampled_from([SHORT, LONG]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.run(self.stage.sweeper.sweep())

    @rule()
    def the_clock_steps_back(self) -> None:
        self.clock.time -= 3_000_000

    @invariant()
    def nothing_ephemeral_is_cold(self) -> None:
        if hasattr(self, "stage"):
            for user in USERS:
                page = self.run(self.stage.cold.read(user, 500, PAGE_BYTES))
                assert not any(queued.message.ephemeral for queued in page.messages)
                assert all(not queued.message.id.startswith("?") for queued in page.messages)

    @rule(user=user_names)
    def everything_arrives(self, user: str) -> None:
        """Once the pipeline has finished, all that is unacknowledged is there, in one batch."""
        self.route(4, len(self.unrouted) or 1)
        got = {queued.message.id for queued in self.fetch(user)}
        routed = {message.id for message in self.sent[user] if not message.ephemeral}
        assert got >= routed - self.acked, "at least once"


class DirectPromises(Promises):
    """One file holds all, so a message is routed in the transaction that accepts it, and no pipeline has anything to
    do. What has a key is accepted again; nothing else comes again, and nothing else is remembered."""

    def accept(self, message: Message) -> None:
        outcome = self.publish(message).outcome
        if message.ephemeral:
            assert outcome in (Outcome.HOT, Outcome.DROPPED_EXPIRED, Outcome.DROPPED_OFFLINE)
        else:
            assert outcome in (Outcome.HOT, Outcome.COLD)
        if message.keyed:
            self.routed_before.append(message)

    def route_again(self, message: Message) -> Routed:
        return self.publish(message)

    def publish(self, message: Message) -> Routed:
        ingress = self.run(opened(self.stage.factory, EmbeddedBackend)).routing_ingress()
        assert ingress is not None
        (result,) = self.run(ingress.publish([message])).routed
        assert result is not None, "nothing waits for a pipeline"
        return result


def keeps(machine: type[Promises], *, examples: int, steps: int) -> None:
    """Whether the promises are kept in so many examples of so many steps."""
    checks = list(HealthCheck)
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine, settings=chosen)


@pytest.mark.usefixtures("piped")
def test_promises() -> None:
    keeps(Promises, examples=60, steps=40)


def test_promises_where_mail_is_routed_as_it_is_accepted() -> None:
    keeps(DirectPromises, examples=60, steps=40)
