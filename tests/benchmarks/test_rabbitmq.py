"""The comparison with RabbitMQ: how it is started, what gives no figure, and what is divided by what.

None of these needs RabbitMQ; its client is one of the locked packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pika import BasicProperties, spec
from pika.frame import Method

from benchmarks import rabbitmq as server
from benchmarks.figures import Turn
from benchmarks.load import Mailbox, Waits
from benchmarks.load_amqp import AmqpRecipient, AmqpSender
from benchmarks.load_http import LoadError
from benchmarks.scenarios import rabbitmq
from benchmarks.scenarios.rabbitmq import Round, Turns, rows
from benchmarks.servers import Bench
from router.bench.latencies import Latencies
from tests.support.servers import MissingServer

BOB = "urn:sm:user:bob"


class Acks:
    """A channel, as far as a recipient needs one."""

    def __init__(self) -> None:
        self.tags: list[int] = []

    def basic_ack(self, tag: int, *, multiple: bool) -> None:
        assert multiple
        self.tags.append(tag)


def test_it_runs_in_its_folder_and_on_loopback_alone(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "HOME": "/root", "RABBITMQ_NODE_PORT": "5672", "ERL_FLAGS": "-sname other"}
    environment = server.broker_environment(inherited, tmp_path, 4000)
    assert environment["PATH"] == "/bin"
    assert not {"RABBITMQ_NODE_PORT", "ERL_FLAGS"} & environment.keys()
    assert (environment["ERL_EPMD_ADDRESS"], environment["ERL_EPMD_PORT"]) == ("127.0.0.1", "4000")
    assert "inet_dist_use_interface {127,0,0,1}" in environment["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"]
    kept = {name for name, value in environment.items() if value.startswith(str(tmp_path))}
    configured = {
        f"RABBITMQ_{name}" for name in ("CONF_ENV_FILE", "CONFIG_FILE", "CONFIG_FILES", "ADVANCED_CONFIG_FILE")
    }
    written = {f"RABBITMQ_{name}" for name in ("ENABLED_PLUGINS_FILE", "LOG_BASE", "MNESIA_BASE")}
    assert kept == {"HOME"} | configured | written


@pytest.mark.anyio
async def test_without_rabbitmq_the_run_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(server.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "DEBIANS", tmp_path / "none")
    assert await rabbitmq.run(Bench(tmp_path, quick=True, rounds=1)) == []
    assert "rabbitmq is left out, since RabbitMQ is missing: install Debian's package" in capsys.readouterr().err


def test_without_its_client_the_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server.VARIABLE, "/bin/true")
    assert server.needed() == Path("/bin/true")
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingServer, match="install the Python package pika"):
        server.needed()


def recipient(page: int = 1) -> tuple[Mailbox, AmqpRecipient]:
    box = Mailbox(BOB)
    return box, AmqpRecipient(box, Waits(Latencies(), Latencies()), page)


def accepted(box: Mailbox, count: int) -> list[tuple[str, bytes]]:
    """Id and envelope of messages that were sent and confirmed, one after the other."""
    messages = []
    for _ in range(count):
        number, envelope = box.envelope()
        box.accepted(number, f"id {number}")
        messages.append((f"id {number}", envelope))
    return messages


def deliver(bob: AmqpRecipient, channel: Acks, messages: Sequence[tuple[str, bytes]]) -> None:
    for tag, (id_, envelope) in enumerate(messages, 1):
        bob._delivered(channel, spec.Basic.Deliver(delivery_tag=tag), BasicProperties(message_id=id_), envelope)


@pytest.mark.anyio
async def test_what_is_held_is_acknowledged_page_by_page() -> None:
    box, bob = recipient(page=2)
    channel = Acks()
    deliver(bob, channel, accepted(box, 5))
    assert channel.tags == [2, 4]
    assert (bob.acknowledged, box.ledger.done_count, len(bob._waits.held)) == (4, 4, 5)
    assert not bob.failed.done()
    box.check()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("order", "why"), [((0, 0), "came back after acknowledgement"), ((1, 0), "id 0 of urn:sm:user:bob: out of order")]
)
async def test_a_broken_promise_of_rabbitmq_gives_no_figure(order: Sequence[int], why: str) -> None:
    box, bob = recipient()
    channel, messages = Acks(), accepted(box, 2)
    deliver(bob, channel, [messages[index] for index in order])
    assert channel.tags == [1], "what breaks a promise is not acknowledged"
    with pytest.raises(LoadError, match=why):
        await bob.failed


@pytest.mark.anyio
async def test_a_refusal_is_no_confirmation() -> None:
    sender = AmqpSender()
    sent = sender.ask(lambda _: sender._confirmed(Method(1, spec.Basic.Nack(1))))
    with pytest.raises(LoadError, match="refused"):
        await sent
    await sender.ask(lambda _: sender._confirmed(Method(1, spec.Basic.Ack(1))))


@pytest.mark.anyio
async def test_a_channel_that_ends_on_its_own_gives_no_figure() -> None:
    box, bob = recipient()
    bob._ended(None, "why")
    with pytest.raises(LoadError, match="RabbitMQ closed a connection: why"):
        await bob.failed
    await bob.close()
    assert box.ledger.done_count == 0


def test_ratios_are_taken_pair_by_pair() -> None:
    """The median of the ratios is not the ratio of the medians."""
    found = rows([pair(128, 128), pair(512, 128), pair(256, 512)], "RabbitMQ 1 on Erlang 2")
    rate, cost, workers = found[:3]
    assert (rate.values, cost.values, workers.values) == ([1, 4, 0.5], [1, 0.25, 2], [2, 8, 1])
    assert workers.met
    assert all(figure.unit == "of RabbitMQ" for figure in found)
    assert "router 256/s" in rate.note
    assert "RabbitMQ 128/s" in rate.note
    *_, accepted_, drained = found
    assert accepted_.values == drained.values == [1, 4, 0.5]


def pair(router: float, other: float) -> Round:
    return Round(turns(router), turns(other), turn(2 * router))


def turns(rate: float) -> Turns:
    return Turns(turn(rate), turn(rate), turn(rate), rate)


def turn(rate: float) -> Turn:
    latencies = Latencies()
    latencies.add(1 / rate)
    return Turn(rate, 1 / rate, latencies, 1500, 0.5)
