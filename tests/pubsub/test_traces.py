"""A trace goes through Pub/Sub: from the ingress to the pipeline, and on to who takes the push command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind

from tests.contract.stage import Stage, staged
from tests.support.clock import ManualClock
from tests.support.pipelines import eventually, running
from tests.support.recorded_spans import TRACE, TRACEPARENT, Recorder, ids, parent
from tests.support.stores_pubsub import PubSubStores
from tests.support.stores_simulated import simulated_pubsub_stores

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stores(anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PubSubStores]:
    async with simulated_pubsub_stores(tmp_path, monkeypatch) as made:
        yield made


async def commands(stage: Stage, stores: PubSubStores, count: int) -> dict[str, dict[str, str]]:
    """The attributes of the push commands once there are ``count``, by the id of the message."""

    async def are_there() -> bool:
        return len(await stores.commands()) >= count

    async with running(stage):
        await eventually(stage, are_there)
    return {command.attributes["messageId"]: dict(command.attributes) for command in await stores.commands()}


async def test_a_trace_goes_from_the_send_to_the_push_command(stores: PubSubStores) -> None:
    recorder = Recorder()
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=value"}
    async with staged(stores, ManualClock(), open_spans=recorder.open) as stage:
        with recorder.spans.request("POST /api/send", headers, {}):
            assert await stage.producer.publish([stage.message("m1")]) == [None]
        attributes = await commands(stage, stores, 1)
    ingress, push = recorder.one("ingress"), recorder.one("push")
    for name in ("route", "cold write", "push"):
        assert (ids(recorder.one(name))[0], parent(recorder.one(name))) == (TRACE, ids(ingress)[1])
    assert push.kind is SpanKind.PRODUCER
    assert attributes["m1"]["traceparent"] == f"00-{TRACE}-{ids(push)[1]}-01"
    assert attributes["m1"]["tracestate"] == "vendor=value"
    assert recorder.one("route").attributes == {"messaging.message.id": "m1", "router.outcome": "cold"}


async def test_messages_of_one_pass_stay_in_their_traces(stores: PubSubStores) -> None:
    """One of them has none, and gets none."""
    recorder, other = Recorder(), TRACEPARENT.replace(TRACE, TRACE[::-1])
    async with staged(stores, ManualClock(), open_spans=recorder.open) as stage:
        for number, traceparent in enumerate((TRACEPARENT, other)):
            with recorder.spans.request("POST /api/send", {"traceparent": traceparent}, {}):
                await stage.producer.publish([stage.message(f"m{number}")])
        await stores.publish_raw(stage.message("m2").envelope, id="m2", traceparent="00-not-valid-01", tracestate="a=1")
        attributes = await commands(stage, stores, 3)
    for name in ("route", "cold write", "push"):
        assert sorted(ids(span)[0] for span in recorder.named(name)) == sorted([TRACE, TRACE[::-1]])
    assert TRACE in attributes["m0"]["traceparent"]
    assert TRACE[::-1] in attributes["m1"]["traceparent"]
    assert not {"traceparent", "tracestate"} & attributes["m2"].keys()


async def test_without_traces_no_attribute_is_added(stores: PubSubStores) -> None:
    async with staged(stores, ManualClock()) as stage:
        await stage.producer.publish([stage.message("m1")])
        (received,) = await stores.api.pull(stores.api.subscription("ingress-sub"), 10, 10.0)
    assert received.message.attributes.keys() == {"id", "accepted_at", "router_checksum"}
