"""The load proves what it claims: a server that loses, repeats or reorders mail gets no figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import mail
from benchmarks.figures import Figure, Latencies, at_least, at_most
from benchmarks.load import Mailbox
from benchmarks.load_http import LoadError
from benchmarks.machine import describe
from benchmarks.mail import Received
from benchmarks.report import Run, load, markdown, save
from router import envelope

BOB = "urn:sm:user:bob"


def sent(box: Mailbox, id_: str, sender: int = 0) -> Received:
    """The next message of ``sender``, accepted, as a batch brings it."""
    read = envelope.read(box.envelope(sender), 4096)
    assert read.recipient == box.user
    box.ledger.accepted(sender)
    (received,) = mail.batch(envelope.message_list([(id_, read.canonical)])).messages
    return received


def test_mail_that_arrives_in_order_is_in_order() -> None:
    box = Mailbox(BOB)
    for number in range(6):
        box.ledger.hold(sent(box, f"id {number}", sender=number % 2))
    box.ledger.check()


def test_an_envelope_holds_a_kibibyte() -> None:
    with pytest.raises(Exception, match="1024 bytes"):
        envelope.read(mail.envelope(BOB), mail.OPAQUE_BYTES - 1)
    envelope.read(mail.envelope(BOB), mail.OPAQUE_BYTES)


def test_loss_is_found() -> None:
    box = Mailbox(BOB)
    box.ledger.hold(sent(box, "kept"))
    sent(box, "lost")
    assert box.ledger.missing == 1
    with pytest.raises(LoadError, match="1 messages were accepted and never arrived"):
        box.ledger.check()


def test_disorder_is_found() -> None:
    box = Mailbox(BOB)
    first, second = sent(box, "first"), sent(box, "second")
    with pytest.raises(LoadError, match="message 0 is missing or late"):
        box.ledger.hold(second)
    box.ledger.hold(first)


def test_a_repetition_is_found() -> None:
    box = Mailbox(BOB)
    message = sent(box, "one")
    box.ledger.hold(message)
    with pytest.raises(LoadError, match="came again"):
        box.ledger.hold(message)


def test_a_second_id_is_found() -> None:
    box = Mailbox(BOB)
    message = sent(box, "one")
    box.ledger.hold(message)
    with pytest.raises(LoadError, match="under two ids"):
        box.ledger.hold(Received("another", message.envelope))


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
