"""The load proves what it claims: a server that loses, repeats or reorders mail gets no figure."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import mail
from benchmarks.figures import Figure, at_least, at_most
from benchmarks.load import Mailbox
from benchmarks.load_http import LoadError
from benchmarks.machine import describe
from benchmarks.mail import Received
from benchmarks.report import Run, load, markdown, save
from router import envelope
from router.bench.latencies import Latencies

BOB = "urn:sm:user:bob"


def sent(box: Mailbox, id_: str) -> Received:
    """The next message, accepted, as a batch brings it."""
    number, envelope_ = box.envelope()
    read = envelope.read(envelope_, 4096)
    assert read.recipient == box.user
    box.accepted(number, id_)
    (received,) = mail.batch(envelope.message_list([(id_, read.canonical)])).messages
    return received


def test_mail_that_arrives_in_order_is_in_order() -> None:
    box = Mailbox(BOB)
    for number in range(6):
        page = [sent(box, f"id {number}")]
        assert [stamp.number for stamp in box.hold(page, time.perf_counter_ns())] == [number]
        box.acknowledged(page)
    box.check()


def test_an_envelope_holds_a_kibibyte() -> None:
    with pytest.raises(Exception, match="1024 bytes"):
        envelope.read(mail.envelope(BOB), mail.OPAQUE_BYTES - 1)
    envelope.read(mail.envelope(BOB), mail.OPAQUE_BYTES)


def test_loss_gives_no_figure() -> None:
    box = Mailbox(BOB)
    box.hold([sent(box, "kept")], 0)
    sent(box, "gone")
    assert box.ledger.missing == 1
    with pytest.raises(LoadError, match="gone of urn:sm:user:bob: lost"):
        box.check()


def test_disorder_gives_no_figure() -> None:
    box = Mailbox(BOB)
    first, second = sent(box, "first"), sent(box, "second")
    with pytest.raises(LoadError, match="first of urn:sm:user:bob: out of order"):
        box.hold([second, first], 0)


def test_a_repetition_gives_no_figure() -> None:
    box = Mailbox(BOB)
    page = [sent(box, "one")]
    box.hold(page, time.perf_counter_ns())
    box.acknowledged(page)
    with pytest.raises(LoadError, match="came back after acknowledgement"):
        box.hold(page, time.perf_counter_ns())


def test_a_second_id_gives_no_figure() -> None:
    box = Mailbox(BOB)
    message = sent(box, "one")
    with pytest.raises(LoadError, match="under a second id"):
        box.hold([message, Received("another", message.envelope)], 0)


def test_goals_ask_the_median() -> None:
    assert Figure("s", "w", [1, 9, 8], "/s", at_least(8)).met
    assert not Figure("s", "w", [1, 9, 8], "/s", at_least(8.1)).met
    assert Figure("s", "w", [0.35], "s", at_most(0.35)).met
    assert Figure("s", "w", [1], "s").met is None


def test_percentiles() -> None:
    latencies = Latencies()
    for number in range(100, 0, -1):
        latencies.add(number / 1000)
    assert (latencies.p50_ms, latencies.p99_ms, latencies.max_ms) == (50, 99, 100)


def test_a_run_is_kept_as_it_was(tmp_path: Path) -> None:
    run = Run("2026-01-01", 1, 3, False, describe(tmp_path), [Figure("s", "w", [1, 2, 4], "/s", at_least(3), "note")])
    path = tmp_path / "results" / "run.json"
    save(run, path)
    assert load(path) == run
    assert "| w | ≥ 3 | 2 /s | 1 to 4 | NO | note |" in markdown(run)
