"""What clients saw is written down as it was, also where there was no answer."""

from __future__ import annotations

import contextlib
import json
import random

import httpx
import msgspec
import pytest

from router import envelope
from router.client import Refused, RouterClient, Unreachable
from tests.chaos.recording import Recorded, Recorder, sealed, tag_of
from tests.sim import history as h

pytestmark = pytest.mark.anyio
BOB = "urn:sm:user:bob"


class Scripted(httpx.AsyncBaseTransport):
    """Gives these answers, one after another."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client(recorder: Recorder, *answers: httpx.Response | Exception) -> RouterClient:
    carrying = Recorded(recorder, BOB, random.Random(1))
    carrying._kept = carrying._fresh = Scripted(*answers)  # type: ignore[assignment]  # it stands in for the network
    return RouterClient("http://test", lambda: "token", transport=carrying, chance=random.Random(1))


def events(recorder: Recorder) -> list[str]:
    return [type(event).__name__ for event in recorder.history.events]


async def test_each_try_to_send_is_an_event_of_its_own() -> None:
    recorder = Recorder()
    async with client(
        recorder, httpx.ReadError("cut"), httpx.Response(503), httpx.Response(202, json={"id": "i"})
    ) as c:
        assert await c.send(sealed(BOB, "a", 10, express=True), "key") == "i"
    assert events(recorder) == ["Sending", "NotSent", "Sending", "NotSent", "Sending", "Sent"]
    first = recorder.history.events[0]
    assert first == h.Sending(1, BOB, "a", express=True)


async def test_each_message_that_is_sent_together_is_an_event_of_its_own() -> None:
    """One that is sent again keeps its place, and is judged by it."""
    recorder = Recorder()
    problem = {"error": {"type": "x", "title": "x", "status": 503}}
    answers = [httpx.Response(202, json={"results": results}) for results in ([{"id": "ia"}, problem, problem], [
        {"id": "ib"}, {"id": "ic"},
    ])]  # fmt: skip
    async with client(recorder, httpx.Response(503), *answers) as c:
        bodies = [sealed(BOB, tag, 10) for tag in "abc"]
        assert await c.send_batch(bodies, ["ka", "kb", "kc"]) == ["ia", "ib", "ic"]
    tries = ["Sending"] * 3 + ["NotSent"] * 3 + ["Sending"] * 3 + ["Sent", "NotSent", "NotSent"]
    assert events(recorder) == [*tries, "Sending", "Sending", "Sent", "Sent"]
    again = [event for event in recorder.history.events if isinstance(event, h.Sending)][-2:]
    assert [(event.tag, event.batch, event.place) for event in again] == [("b", "ka", 1), ("c", "ka", 2)]
    recorder.add(h.Fetching(99, BOB, 50))
    recorder.add(h.Fetched(99, (h.Item("ia", "a"), h.Item("ic", "c"), h.Item("ib", "b"))))
    assert [violation.promise for violation in recorder.judge.violations] == ["in order"]


async def test_a_batch_and_its_acknowledgement() -> None:
    recorder = Recorder()
    body = envelope.read(sealed(BOB, "a", 500), 10_000).canonical
    batch = b'{"messages":[{"id":"i","envelope":%b}]}' % body
    async with client(recorder, httpx.Response(200, content=batch), httpx.Response(204)) as c:
        (received,) = await c.fetch()
        await c.acknowledge([received.id])
    began, fetched, acking, acked = recorder.history.events
    assert isinstance(began, h.Fetching)
    assert (began.user, began.limit) == (BOB, 50)
    assert fetched == h.Fetched(1, (h.Item("i", "a"),))
    assert (acking, acked) == (h.Acking(2, BOB, ("i",)), h.Acked(2))
    assert [violation.promise for violation in recorder.judge.violations] == ["sealed as sent"], "nobody sent it"


async def test_a_request_that_acknowledges_and_fetches_is_both() -> None:
    recorder = Recorder()
    recorder.add(h.Sending(recorder.history.op(), BOB, "a"))
    batch = b'{"messages":[{"id":"i","envelope":%b}]}' % envelope.read(sealed(BOB, "a", 10), 10_000).canonical
    answers = [httpx.Response(status, content=content) for status, content in ((503, b""), (200, batch), (404, b""))]
    async with client(recorder, *answers, httpx.Response(204), httpx.Response(200, json={"messages": []})) as c:
        assert [received.id for received in await c.next(["x"], 7)] == ["i"]
        assert await c.next(["i"], 7) == []
    tries = ["Acking", "Fetching", "NotAcked", "NotFetched", "Acking", "Fetching", "Acked", "Fetched"]
    assert events(recorder)[1:] == [*tries, *tries[:4], "Acking", "Acked", "Fetching", "Fetched"]
    acking, fetching = recorder.history.events[5:7]
    assert acking == h.Acking(4, BOB, ("x",))
    assert isinstance(fetching, h.Fetching)
    assert (fetching.op, fetching.limit, fetching.without) == (5, 7, ("x",))


@pytest.mark.parametrize(
    "changed", [(b"urn:sm", b"urn:si"), (b"recipientId", b"recipientIe"), (b'"}', b"'}"), (b"Data", b"Dat\xe1")]
)
async def test_a_batch_that_is_not_as_it_was_sent_is_seen(changed: tuple[bytes, bytes]) -> None:
    recorder = Recorder()
    recorder.add(h.Sending(1, BOB, "a"))
    batch = b'{"messages":[{"id":"i","envelope":%b}]}' % envelope.read(sealed(BOB, "a", 10), 10_000).canonical
    assert batch.count(changed[0]) >= 1
    answers = httpx.Response(200, content=batch.replace(*changed)), httpx.Response(400, json={"detail": "enough"})
    async with client(recorder, *answers) as c:
        with contextlib.suppress(Refused):
            await c.fetch()  # what it cannot read it asks for again
    assert [violation.promise for violation in recorder.judge.violations] == ["sealed as sent"]


async def test_what_the_router_refuses_is_an_answer() -> None:
    recorder = Recorder()
    async with client(recorder, httpx.Response(400, json={"detail": "no"})) as c:
        with pytest.raises(Refused):
            await c.send(sealed(BOB, "a", 10), "key")
    assert recorder.history.events[1] == h.NotSent(1, "400")


async def test_who_gives_up_leaves_a_try_of_which_nobody_knows() -> None:
    recorder = Recorder()
    carrying = Recorded(recorder, BOB, random.Random(1))
    async with RouterClient("http://127.0.0.1:9", lambda: "token", budget_seconds=0, transport=carrying) as c:
        with pytest.raises(Unreachable):
            await c.fetch()
    assert events(recorder) == ["Fetching", "NotFetched"]


def test_a_payload_says_what_it_is_and_whether_it_is_whole() -> None:
    data = json.loads(sealed(BOB, "3.7", 500))["encryptedData"]
    assert tag_of(data) == "3.7"
    assert tag_of(data[:400] + "AAAA" + data[404:]).startswith("damaged")
    assert tag_of("AAAA").startswith("damaged")
    assert tag_of(data[:-1]).startswith("damaged")


def test_sealed_makes_a_valid_envelope() -> None:
    body = sealed(BOB, "a", 10, ephemeral=True)
    read = envelope.read(body, 10_000)
    assert (read.recipient, read.ephemeral) == (BOB, True)
    assert msgspec.json.decode(read.canonical) == msgspec.json.decode(body)
