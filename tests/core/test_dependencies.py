"""Nothing is silent: outages, dead letters and bugs are told of, and each once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from router.config import Config, Google, Ingress
from router.config.roles import Role
from router.core.dependencies import (
    LOOK_SECONDS,
    PROBED_SECONDS,
    QUIET_LOOKS,
    QUIET_SECONDS,
    STALE_SECONDS,
    Dependencies,
    DependencyOutage,
    Over,
    Place,
)
from router.dead_reasons import DeadReason
from router.errors import Refused, RouterError, Unavailable
from router.messages import DeadLetter, Delivery, Queued, Routed
from router.metrics import Metrics
from tests.contract.stage import BOB, EVE, Stage, staged, until
from tests.support.backends import places
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, routed, running
from tests.support.stores import EmbeddedStores

SECRET = "MARKER-PAYLOAD"


@dataclass
class Heard:
    """``Reports`` that keep what they are told."""

    said: list[tuple[str, ...]] = field(default_factory=list)

    def outage(self, place: Place, error: str) -> None:
        self.said.append(("begins", place.role, place.backend, place.address, error))

    def outage_over(self, place: Place, seconds: float, failures: int) -> None:
        self.said.append(("over", place.role, f"{seconds:g}", str(failures)))

    def dead_letter(self, letter: DeadLetter) -> None:
        self.said.append(("letter", letter.id, letter.recipient, letter.reason))

    def bug(self, where: str, error: BaseException) -> None:
        self.said.append(("bug", where, type(error).__name__))


class Store:
    """A component whose calls fail as told."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.probes = self.hangs = 0

    async def _do(self, call: str) -> None:
        await asyncio.sleep(0)
        if call in self.fails:
            raise Unavailable(f"{call} failed")

    async def read(self) -> str:
        await self._do("read")
        return "read"

    async def publish(self, outcomes: Sequence[RouterError | None]) -> list[RouterError | None]:
        return list(outcomes)

    async def put(self, messages: Sequence[str]) -> list[str]:
        await self._do("put")
        return [message for message in messages if message == "refused"]

    async def refuse(self) -> None:
        raise Refused("never")

    async def hang(self) -> None:
        self.hangs += 1
        await asyncio.get_running_loop().create_future()

    async def receive(self) -> None:
        await self.hang()

    async def probe(self) -> None:
        self.probes += 1
        await self._do("probe")


@dataclass
class Watch:
    heard: Heard
    clock: ManualClock
    metrics: Metrics
    dependencies: Dependencies
    store: Store
    watched: Store

    def failures(self) -> float | None:
        labels = {"dependency": "online", "kind": "embedded"}
        return self.metrics.registry.get_sample_value("router_dependency_failures_total", labels)

    def up(self) -> float | None:
        labels = {"dependency": "online", "kind": "embedded"}
        return self.metrics.registry.get_sample_value("router_dependency_up", labels)


@pytest.fixture
def watch() -> Watch:
    heard, clock, metrics, store = Heard(), ManualClock(), Metrics(), Store()
    dependencies = Dependencies(clock, metrics, heard)
    watched = dependencies.watched(store, places(Config())[Role.ONLINE])
    return Watch(heard, clock, metrics, dependencies, store, watched)


def test_an_outage_is_told_once_and_its_end_once() -> None:
    outage = DependencyOutage()
    assert not outage
    assert [outage.failed("put", at) for at in (100, 101, 102)] == [True, False, False]
    assert outage
    assert outage.worked("read", 105) is None, "what failed has not worked yet"
    assert outage.worked("put", 107) == Over(5.0, 3)
    assert outage.worked("put", 108) is None
    assert not outage


def test_one_that_comes_and_goes_is_told_of_now_and_then() -> None:
    outage = DependencyOutage()
    told = 0
    for at in range(0, 300, 2):
        told += outage.failed("put", at)
        outage.worked("put", (at + 1))
    assert told == 300 / QUIET_SECONDS


def test_an_outage_that_began_in_the_quiet_time_is_reported_if_it_lasts() -> None:
    outage = DependencyOutage()
    assert outage.failed("put", 0)
    assert outage.worked("put", 1)
    assert not outage.failed("put", 2)
    assert outage.failed("put", (QUIET_SECONDS + 1))
    assert outage.worked("put", 60) == Over(58.0, 2)


def test_a_call_that_nobody_makes_any_more_keeps_no_outage_alive() -> None:
    outage = DependencyOutage()
    assert outage.failed("forget_cold", 0)
    assert outage.worked("read", 1) is None
    assert outage.worked("read", STALE_SECONDS) == Over(1.0, 1)


def test_an_answered_probe_ends_an_outage_sooner() -> None:
    outage = DependencyOutage()
    assert outage.failed("route", 0)
    assert outage.worked("probe", 5) is None
    assert outage.worked("probe", PROBED_SECONDS) == Over(5.0, 1)


@pytest.mark.anyio
async def test_calls_say_whether_a_dependency_works(watch: Watch) -> None:
    assert (watch.failures(), watch.up()) == (0, 1), "the series are there before the first failure"
    watch.store.fails = {"read"}
    for _ in range(3):
        with pytest.raises(Unavailable) as error:
            await watch.watched.read()
        assert error.value.dependency == "online"
    assert watch.up() == 0
    watch.clock.advance(2)
    watch.store.fails = set()
    assert await watch.watched.read() == "read"
    assert watch.up() == 1
    with pytest.raises(Refused):
        await watch.watched.refuse()
    where = str(Config().embedded.data_dir)
    begins, over = watch.heard.said
    assert begins == ("begins", "online", "embedded", where, "read failed")
    assert over == ("over", "online", "2", "3")
    assert watch.failures() == 3


@pytest.mark.anyio
async def test_what_is_not_written_is_a_failure_too(watch: Watch) -> None:
    assert await watch.watched.put(["refused", "taken"]) == ["refused"]
    assert watch.heard.said[0][-1] == "1 messages were not written"


@pytest.mark.anyio
async def test_what_is_not_published_is_a_failure_unless_it_is_refused(watch: Watch) -> None:
    await watch.watched.publish([None, Refused("too large")])
    assert not watch.heard.said
    await watch.watched.publish([None, Unavailable("down"), Refused("too large"), Unavailable("down")])
    assert watch.heard.said[0][-1] == "2 messages were not written"


@pytest.mark.anyio
@pytest.mark.parametrize(("call", "seconds", "told"), [("hang", 0.02, 1), ("hang", 9, 0), ("receive", 0.02, 0)])
async def test_a_call_that_is_given_up_was_not_answered(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, call: str, seconds: float, told: int
) -> None:
    """Unless its caller was in haste, or it is one that waits for mail."""
    monkeypatch.setattr("router.core.dependencies.UNANSWERED_SECONDS", seconds)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await getattr(watch.watched, call)()
    assert len(watch.heard.said) == told


async def look(watch: Watch, times: int = 1) -> None:
    """Let ``Dependencies.run`` look so often, to the end of what it asks."""
    for _ in range(times):
        await until(lambda: watch.clock.sleepers > 0)
        watch.clock.advance(LOOK_SECONDS)
        await until(lambda: watch.clock.sleepers > 0)


@pytest.fixture
async def looking(anyio_backend: str, watch: Watch) -> AsyncIterator[None]:
    del anyio_backend
    watch.dependencies.probed("online", watch.watched.probe)
    task = asyncio.create_task(watch.dependencies.run())
    yield
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.anyio
@pytest.mark.usefixtures("looking")
async def test_a_failing_dependency_is_probed_until_it_works(watch: Watch) -> None:
    watch.store.fails = {"read", "probe"}
    with pytest.raises(Unavailable):
        await watch.watched.read()
    await look(watch)
    assert watch.failures() == 2
    watch.store.fails = set()
    await look(watch, int(PROBED_SECONDS / LOOK_SECONDS))
    assert [said[0] for said in watch.heard.said] == ["begins", "over"]


@pytest.mark.anyio
@pytest.mark.usefixtures("looking")
async def test_a_dependency_without_calls_is_probed(watch: Watch) -> None:
    watch.store.fails = {"probe"}
    await look(watch, QUIET_LOOKS)
    assert watch.heard.said == [("begins", "online", "embedded", watch.heard.said[0][3], "probe failed")]
    watch.store.fails = set()
    await look(watch)
    assert [said[0] for said in watch.heard.said] == ["begins", "over"]


@pytest.mark.anyio
@pytest.mark.usefixtures("looking")
async def test_one_that_answers_is_not_asked_by_the_way(watch: Watch) -> None:
    """A question may cost money."""
    for _ in range(10):
        await watch.watched.read()
        await look(watch)
    assert watch.store.probes == 0
    await look(watch, 10 * QUIET_LOOKS)
    assert watch.store.probes == 10


@pytest.mark.anyio
@pytest.mark.usefixtures("looking")
async def test_one_that_does_not_answer_holds_up_no_question(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.core.dependencies.ANSWER_SECONDS", 0)
    monkeypatch.setattr("router.core.dependencies.UNANSWERED_SECONDS", 0)
    watch.dependencies.probed("online", watch.watched.hang)
    await look(watch, 2 * QUIET_LOOKS)
    assert [said[0] for said in watch.heard.said] == ["begins"]
    monkeypatch.undo()
    watch.dependencies.probed("online", watch.watched.probe)
    await look(watch, int(PROBED_SECONDS / LOOK_SECONDS) + 1)
    assert [said[0] for said in watch.heard.said] == ["begins", "over"]


@pytest.mark.anyio
async def test_a_question_that_is_not_answered_keeps_no_process_from_ending(watch: Watch) -> None:
    watch.dependencies.probed("online", watch.watched.hang)
    task = asyncio.create_task(watch.dependencies.run())
    for _ in range(QUIET_LOOKS):
        await until(lambda: watch.clock.sleepers > 0)
        watch.clock.advance(LOOK_SECONDS)
    await until(lambda: watch.store.hangs == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert watch.heard.said == []


def test_places_name_the_server_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    config = Config.model_validate(
        {
            "online": {"kind": "redis", "url": f"redis://me:{SECRET}@r1:6380,[::1]", "mode": "cluster"},
            "ingress": Ingress(kind="pubsub"),
            "google": Google(project="my-project"),
        }
    )
    found = places(config)
    assert found[Role.ONLINE].address == "r1:6380,[::1]:6379 (cluster)"
    assert found[Role.INGRESS].address == "project my-project, topic ingress-topic, subscription ingress-sub"
    assert SECRET not in repr(found)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "localhost:8085")
    assert places(config)[Role.DEAD_LETTERS].address.endswith(", emulator localhost:8085")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path, heard: Heard) -> AsyncIterator[Stage]:
    del anyio_backend
    async with staged(EmbeddedStores(tmp_path), ManualClock(), reports=heard) as opened:
        yield opened


@pytest.mark.anyio
async def test_every_dead_letter_is_told_of(stage: Stage, heard: Heard) -> None:
    """By the pipeline and by a migration."""
    await stage.fill(EVE)
    async with running(stage):
        await stage.producer.publish([stage.message("full", EVE)])
        await routed(stage)
    assert heard.said == [("letter", "full", EVE, DeadReason.QUEUE_FULL)]


@pytest.mark.anyio
async def test_what_a_migration_refuses_is_told_of(stage: Stage, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: object, messages: Sequence[Queued]) -> list[Queued]:
        raise Refused("too large")

    await stage.connect()
    await stage.go("m1")
    monkeypatch.setattr(type(stage.cold), "put", refuse)
    await stage.migrator.migrate(BOB, online_too=True)
    assert heard.said == [("letter", "m1", BOB, DeadReason.UNSTORABLE)]


@pytest.mark.anyio
async def test_a_bug_in_routing_is_told_of_each_time(
    stage: Stage, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_(_: object, deliveries: Sequence[Delivery]) -> list[Routed]:
        raise KeyError(SECRET)

    monkeypatch.setattr(type(stage.online), "route", break_)
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])
        await routed(stage)
    assert set(heard.said) == {("bug", "routing", "KeyError"), ("letter", "m1", BOB, DeadReason.ATTEMPTS_EXHAUSTED)}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("role", "call"), [("online", "route"), ("cold", "put"), ("push", "publish"), ("ingress", "receive")]
)
async def test_a_pipeline_tells_of_each_outage_it_meets(
    stage: Stage, heard: Heard, monkeypatch: pytest.MonkeyPatch, role: str, call: str
) -> None:
    components = {
        "online": stage.online,
        "cold": stage.cold,
        "push": await stage.factory.push_notifier(),
        "ingress": await stage.factory.ingress_consumer(),
    }
    where = type(components[role])
    real: Callable[..., object] = getattr(where, call)
    down = True

    async def fail(*arguments: object) -> object:
        if down:
            raise Unavailable("down")
        return await real(*arguments)  # type: ignore[misc]  # it is one of the seams' coroutine functions

    monkeypatch.setattr(where, call, fail)
    async with running(stage):
        await stage.producer.publish([stage.message("m1")])

        async def failed() -> bool:
            return stage.failures(role) > 0

        await eventually(stage, failed)
        down = False
        await routed(stage)
        if role == "online":
            await stage.producer.publish([stage.message("m2")])
            await routed(stage)
    assert [(said[0], said[1]) for said in heard.said] == [("begins", role), ("over", role)]
