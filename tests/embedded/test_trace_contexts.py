"""The traces of messages in the embedded database: their way through the ingress, and their time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.backends.embedded import schema
from router.backends.embedded.trace_contexts import EmbeddedTraceContexts
from router.clock import MICROSECONDS
from router.errors import Unavailable
from router.trace_context import TRACE_SECONDS
from tests.contract.stage import BOB, Stage, staged
from tests.support.clock import ManualClock
from tests.support.damage import execute
from tests.support.pipelines import routed, running
from tests.support.recorded_spans import TRACE, TRACEPARENT, Recorder, ids, linked, parent
from tests.support.stores import EmbeddedStores

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def stage(anyio_backend: str, tmp_path: Path, recorder: Recorder) -> AsyncIterator[Stage]:
    async with staged(EmbeddedStores(tmp_path), ManualClock(), open_spans=recorder.open) as opened:
        yield opened


def remembered(data_dir: Path) -> int:
    with closing(schema.open_reader(data_dir / schema.FILE_NAME)) as database:
        (count,) = database.execute("SELECT count(*) FROM trace_context").fetchone()
        return int(count)


@pytest.mark.usefixtures("piped")
async def test_a_trace_goes_through_the_ingress_to_the_fetch(stage: Stage, recorder: Recorder) -> None:
    """Where a pipeline routes: the message waits in a table meanwhile."""
    with recorder.spans.request("POST /api/send", {"traceparent": TRACEPARENT}, {}):
        await stage.producer.publish([stage.message("m1")])
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == ["m1"]
    ingress = recorder.one("ingress")
    for name in ("route", "cold write", "push", "deliver"):
        assert (ids(recorder.one(name))[0], parent(recorder.one(name))) == (TRACE, ids(ingress)[1])
    assert linked(recorder.one("fetch")) == [(TRACE, ids(ingress)[1])]


async def test_where_one_file_holds_all_it_goes_from_the_send_to_the_fetch(stage: Stage, recorder: Recorder) -> None:
    with recorder.spans.request("POST /api/send", {"traceparent": TRACEPARENT}, {}):
        await stage.producer.publish([stage.message("m1")])
    assert await stage.ids() == ["m1"]
    assert linked(recorder.one("fetch")) == [(TRACE, ids(recorder.one("ingress"))[1])]


async def test_a_trace_that_nobody_takes_has_its_time(stage: Stage, tmp_path: Path) -> None:
    """Whether or not anybody is still asked for traces."""
    sent = replace(stage.message("m1"), trace=TRACEPARENT)
    await stage.producer.publish([sent])
    await stage.route(sent)
    assert remembered(tmp_path) == 1
    async with staged(EmbeddedStores(tmp_path), stage.clock) as plain:
        at = stage.clock.now() + TRACE_SECONDS * MICROSECONDS
        await plain.online.purge(100, at - 1)
        assert remembered(tmp_path) == 1
        await plain.online.purge(100, at)
        assert remembered(tmp_path) == 0


async def test_a_refused_message_is_not_remembered(stage: Stage, recorder: Recorder, tmp_path: Path) -> None:
    await stage.fill(BOB)
    with recorder.spans.request("POST /api/send", {"traceparent": TRACEPARENT}, {}):
        await stage.producer.publish([stage.message("m1")])
    assert [id_ for id_, _ in await stage.stores.letters(stage.factory)] == ["m1"]
    assert remembered(tmp_path) == 0


async def test_without_traces_nothing_is_written(tmp_path: Path, anyio_backend: str) -> None:
    async with staged(EmbeddedStores(tmp_path), ManualClock()) as plain:
        await plain.producer.publish([plain.message("m1")])
        assert await plain.ids() == ["m1"]
    assert remembered(tmp_path) == 0


@pytest.mark.usefixtures("piped")
async def test_a_damaged_trace_damages_no_message(stage: Stage) -> None:
    await stage.producer.publish([stage.message("m1")])
    execute(stage, "UPDATE ingress SET trace = 'no trace'")
    async with running(stage):
        await routed(stage)
    assert await stage.ids() == ["m1"]


async def test_a_store_that_remembers_nothing_now_costs_the_links_and_nothing_else(
    stage: Stage, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable("down")

    for name in ("keep", "find", "take"):
        monkeypatch.setattr(EmbeddedTraceContexts, name, fail)
    await stage.producer.publish([stage.message("m1"), stage.message("m2")])
    assert await stage.ids() == ["m1", "m2"]
    await stage.queue.acknowledge(BOB, ["m1"])
    assert [queued.message.id for queued in await stage.queue.next(BOB, ["m2"], 10)] == []
    spans = [*recorder.named("fetch"), recorder.one("ack")]
    assert [linked(span) for span in spans] == [[], [], []]
    assert all(span.status.is_unset for span in spans)


async def test_a_move_belongs_to_no_request(stage: Stage, recorder: Recorder) -> None:
    """It is for all of a user's mail, and whoever's request happens to be under way has nothing to do with it."""
    with recorder.spans.around("request"):
        await stage.migrator.migrate(BOB)
    assert parent(recorder.one("move")) is None


async def test_a_trace_that_nobody_samples_is_not_remembered(stage: Stage, tmp_path: Path) -> None:
    unsampled = {"traceparent": TRACEPARENT.removesuffix("01") + "00"}
    assert stage.factory.spans is not None
    with stage.factory.spans.request("POST /api/send", unsampled, {}):
        await stage.producer.publish([stage.message("m1")])
    assert remembered(tmp_path) == 0
