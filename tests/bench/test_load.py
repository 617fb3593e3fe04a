"""The load against a router that breaks one promise: each verdict is seen to fail, and none without cause."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import Struct, structs
from starlette.types import Receive, Scope, Send

from router.auth.embedded import EmbeddedKey
from router.bench import load as loads
from router.bench.ledger import Fault
from router.bench.load import Cast, Load, Plan, loading
from router.bench.marks import Marks
from router.bench.pace import Pace
from router.bench.people import Person
from router.bench.report import Report, report
from router.cli.bench_tables import tables, verdict
from router.cli.bench_users import made_up
from router.cli.exits import Code, code_of
from router.cli.output import aligned
from router.client import Refused, Unreachable
from router.clock import SystemClock
from router.config import Config, Embedded
from router.errors import ConfigError
from tests.support.edge import server
from tests.support.faulty_router import FaultyRouter, problem

pytestmark = pytest.mark.anyio
PEOPLE, MESSAGES = 3, 24
VERDICTS = {
    Fault.LOST: "lost",
    Fault.OUT_OF_ORDER: "out_of_order",
    Fault.SECOND_ID: "second_id",
    Fault.CAME_BACK: "came_back",
    Fault.SOMEBODY_ELSES: "somebody_elses",
    Fault.ALTERED: "altered",
}
BOB = "urn:sm:user:bob"
STARTED = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """One signing key for all."""
    return Config(embedded=Embedded(data_dir=tmp_path_factory.mktemp("data")))


class Stage:
    """One listening server for all tests, and whose router it is now."""

    def __init__(self) -> None:
        self.router = FaultyRouter()
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.router.app(scope, receive, send)


@pytest.fixture(scope="module")
async def stage(anyio_backend: str) -> AsyncIterator[Stage]:
    del anyio_backend
    stage = Stage()
    async with server(stage) as listening:
        stage.url = f"http://127.0.0.1:{listening.port}"
        yield stage


class Bench(Struct):
    """Opens loads of a few people on a faulty router."""

    stage: Stage
    config: Config

    @asynccontextmanager
    async def opened(
        self, faulty: FaultyRouter, pace: Pace, patience: float = 10.0, offline: float = 0.0, cast: Cast | None = None
    ) -> AsyncIterator[Load]:
        """A load whose people are online."""
        self.stage.router = faulty
        marks = Marks(1024)
        plan = Plan(self.stage.url, None, pace, 1024, patience)
        cast = cast or made_up(self.config, marks.run.hex(), PEOPLE, offline, senders=1)
        async with loading(plan, cast, marks, lambda _: None) as load:
            yield load

    async def run(self, faulty: FaultyRouter, *, patience: float = 10.0, offline: float = 0.0) -> Report:
        """Send a few messages, receive, report."""
        async with self.opened(faulty, Pace(MESSAGES, None, None), patience, offline) as load:
            await load.send()
            await load.receive()
        return report(load, "run", STARTED, interrupted=False)


@pytest.fixture
def bench(stage: Stage, config: Config) -> Bench:
    return Bench(stage, config)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("offline", [0.0, 0.34, 1.0])
async def test_a_router_that_keeps_its_promises_is_not_accused(bench: Bench, offline: float, old: bool) -> None:
    faulty = FaultyRouter(old=old)
    found = await bench.run(faulty, offline=offline)
    assert found.held
    assert (faulty.followed == 0) == old
    asked = {refusal.route: refusal.tries for refusal in found.refusals}
    assert asked == ({"POST /api/messages/next": PEOPLE} if old else {}), "an old one is asked once by each"
    assert set(structs.asdict(found.promises).values()) == {0}
    assert (found.messages.offered, found.messages.accepted, found.messages.saved) == (MESSAGES,) * 3
    assert (found.messages.left, found.messages.given_up, found.messages.unsent) == (0, 0, 0)
    assert not any(faulty.mail.values()), "it leaves nothing behind"
    assert found.offline == round(offline * PEOPLE)
    assert (found.cold is not None) == (offline > 0)
    if found.cold is not None:
        assert found.cold.messages == MESSAGES * found.offline // PEOPLE
    assert (found.latency.saved is None) == (offline == 1)
    text = str(found) + verdict(found) + "".join(map(aligned, tables(found)))
    assert "Every promise held" in text
    assert len({headers["idempotency-key"] for headers in faulty.sends}) == MESSAGES
    for headers in faulty.sends:
        assert headers["authorization"].rpartition(".")[2] not in text


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("fault", Fault)
async def test_a_broken_promise_is_named(bench: Bench, fault: Fault, old: bool) -> None:
    found = await bench.run(FaultyRouter(fault, old=old), patience=0.1)
    assert not found.held
    broken = {name for name, count in structs.asdict(found.promises).items() if count}
    # Whose contents were altered never arrived; what went to somebody else is theirs too.
    assert broken - {"lost"} == {VERDICTS[fault]} - {"lost"}
    assert ("lost" in broken) == (fault in {Fault.LOST, Fault.ALTERED})
    assert getattr(found.promises, VERDICTS[fault]) == PEOPLE
    assert any(str(fault) in example for example in found.examples)
    assert f"BROKEN: {PEOPLE} " in verdict(found)


async def test_who_is_refused_is_told_so(bench: Bench) -> None:
    """A refusal that no further try would change ends the sending; what passes is tried again and counted."""
    faulty = FaultyRouter()
    async with bench.opened(faulty, Pace(None, 60, None)) as load:
        faulty.refuse = problem(413, "envelope-too-large")
        await load.send()
        await load.receive()
    assert isinstance(load.failure(), Refused)
    assert code_of(load.failure()) is Code.DATA
    (refusal,) = report(load, "run", STARTED, interrupted=False).refusals
    assert (refusal.route, refusal.status, refusal.reason) == ("POST /api/send", 413, "envelope-too-large")


async def test_a_router_that_takes_nothing_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "TRY_SECONDS", 0.05)
    faulty = FaultyRouter()
    async with bench.opened(faulty, Pace(1000, None, None), patience=0.1) as load:
        faulty.refuse = problem(503, "unavailable")
        await load.send()
        await load.receive()
    found = report(load, "run", STARTED, interrupted=False)
    assert found.held, "nothing was promised"
    assert found.messages.accepted == found.messages.left == 0
    assert 0 < found.messages.given_up < 1000
    assert code_of(load.failure()) is Code.UNAVAILABLE
    assert "503: unavailable" in str(load.failure())


async def test_a_rate_that_cannot_be_had_counts_from_when_messages_were_due(bench: Bench) -> None:
    async with bench.opened(FaultyRouter(), Pace(None, 0.3, 100_000)) as load:
        await load.send()
        await load.receive()
    found = report(load, "run", STARTED, interrupted=False)
    assert found.held
    assert found.messages.offered == 30_000
    assert found.messages.unsent == 30_000 - found.messages.accepted > 0
    # The last one that was sent was due long before: it had waited for a sender.
    assert found.latency.accepted is not None
    assert found.latency.accepted.max > 0.25


async def test_senders_have_names_that_change(config: Config) -> None:
    """So that what is measured is not the limit of one sender."""
    marks = Marks(1024)
    (token,) = made_up(config, marks.run.hex(), PEOPLE, 0, senders=1).senders
    tokens = [token() for _ in range(201)]
    assert len(set(tokens)) == 3
    assert len(set(tokens[:100])) == 1


async def test_bench_fails_if_no_router_answers(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "START_SECONDS", 0.1)
    marks = Marks(1024)
    cast = made_up(config, marks.run.hex(), PEOPLE, 0, senders=1)
    plan = Plan("http://127.0.0.1:1", None, Pace(1, None, None), 1024, 1)
    with pytest.raises(Unreachable):
        async with loading(plan, cast, marks, lambda _: None):
            pass


async def test_bench_fails_if_no_socket_can_be_opened(
    stage: Stage, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "START_SECONDS", 0.2)
    marks = Marks(1024)
    cast = made_up(config, marks.run.hex(), PEOPLE, 0, senders=1)
    plan = Plan(stage.url, "ws://127.0.0.1:1/connect", Pace(1, None, None), 1024, 1)
    with pytest.raises(Unreachable, match="accepts no WebSocket"):
        async with loading(plan, cast, marks, lambda _: None):
            pass


def users(config: Config) -> Cast:
    """Two users who are not made up, one to receive and one to send."""
    key = EmbeddedKey.open(config.embedded.data_dir)
    tokens = [key.sign(user, SystemClock().now(), 60) for user in (BOB, "urn:sm:user:alice")]
    return Cast([Person(BOB, lambda: tokens[0])], [], [lambda: tokens[1]], made_up=False)


async def test_mail_of_others_is_left_alone(bench: Bench) -> None:
    """It is no fault where the names are not made up, and it hides nothing that comes behind it."""
    faulty, cast = FaultyRouter(), users(bench.config)
    others = {f"other {number}": {"recipientId": BOB, "encryptedData": "eA=="} for number in range(60)}
    async with bench.opened(faulty, Pace(5, None, None), cast=cast) as load:
        faulty.mail[BOB] |= others
        await load.send()
        await load.receive()
    found = report(load, "run", STARTED, interrupted=False)
    assert (found.held, found.messages.saved, found.foreign) == (True, 5, 60)
    assert faulty.mail[BOB] == others
    # Who has mail before it begins is left alone altogether.
    with pytest.raises(ConfigError, match="already has mail"):
        async with bench.opened(faulty, Pace(5, None, None), cast=cast):
            pass
    assert faulty.mail[BOB] == others


async def test_strange_mail_of_a_made_up_name_is_somebody_elses(bench: Bench) -> None:
    faulty = FaultyRouter()
    async with bench.opened(faulty, Pace(5, None, None)) as load:
        name = load.recipients[0].mailbox.person.user
        faulty.mail[name]["strange"] = {"recipientId": name}
        await load.send()
        await load.receive()
    found = report(load, "run", STARTED, interrupted=False)
    assert (found.held, found.promises.somebody_elses, found.foreign) == (False, 1, 0)
    assert faulty.mail[name].keys() == {"strange"}
