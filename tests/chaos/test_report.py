"""What the report says of a history, in figures, in tables and on its page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from router.cli.output import aligned
from tests.chaos import page, report
from tests.chaos.faults import Done
from tests.chaos.people import ROAMING_USERS, STEADY_USERS
from tests.chaos.run import Options, Outcome
from tests.sim import history as h
from tests.sim.checker import judge

BOB, EVE = STEADY_USERS[0], ROAMING_USERS[0]
FAULTS = [
    Done("kill", "serve-api 1", "serve-api", 10.0, 12.0),
    Done("pause", "redis", "redis", 30.0, 34.0),
    Done("kill", "serve-api 2", "serve-api", 50.0, 51.0),
    Done("reshape", "one <process>", "topology", 60.0, 61.0),
]


def story() -> h.History:
    """Bob gets one message after 3 s, and the same again; another after 0.5 s. Eve's is not read."""
    told = h.History()
    for at, event in (
        (10.5, h.Sending(1, BOB, "a")),
        (11.0, h.NotSent(1, "cut")),
        (11.5, h.Sending(2, BOB, "a")),
        (12.0, h.Sent(2, "ia")),
        (12.5, h.Note("serve-api 1", "is back")),
        (13.0, h.Fetching(3, BOB, 50)),
        (13.5, h.Fetched(3, (h.Item("ia", "a"),))),
        (14.0, h.Fetching(4, BOB, 50)),
        (14.5, h.Fetched(4, (h.Item("ia", "a"),))),
        (15.0, h.Acking(5, BOB, ("ia",))),
        (15.5, h.Acked(5)),
        (30.0, h.Sending(6, EVE, "e")),
        (30.1, h.Sent(6, "ie")),
        (30.2, h.Pushed("ie", EVE)),
        (40.0, h.Sending(7, BOB, "b")),
        (40.1, h.Sent(7, "ib")),
        (40.2, h.Fetching(8, BOB, 50)),
        (40.5, h.Fetched(8, (h.Item("ib", "b"),))),
    ):
        told.add(at, event)
    return told


def damaged() -> h.History:
    """A copy of each of Bob's new ones is damaged: one is served from another copy, one had been read before, one is a
    dead letter."""
    told = story()
    new: list[tuple[float, h.Event]] = [
        *((50.0 + op / 100, h.Sending(op, BOB, tag)) for op, tag in ((20, "x"), (21, "y"), (22, "z"))),
        *((51.0 + op / 100, h.Sent(op, f"i{tag}")) for op, tag in ((20, "x"), (21, "y"), (22, "z"))),
        (52.0, h.Flipped("ix")),
        (52.1, h.Fetching(23, BOB, 50)),
        (52.2, h.Flipped("iy")),
        (52.3, h.Flipped("iz")),
        (52.4, h.Fetched(23, (h.Item("ib", "b"), h.Item("ix", "x"), h.Item("iy", "y")))),
        (52.5, h.Buried("iz", "damaged")),
    ]
    for at, event in new:
        told.add(at, event)
    return told


def outcome(told: h.History) -> Outcome:
    options = Options(seed=7, seconds=60.0)
    return Outcome("production", options, told, FAULTS, 1, 2.5, judge(told, 10.0))


@pytest.fixture
def good() -> report.Report:
    return report.make(outcome(story()), "2026-01-02", "2 cores")


@pytest.fixture
def bad() -> report.Report:
    told = story()
    for at, event in (
        (50.0, h.Fetching(20, BOB, 50)),
        (50.5, h.Fetched(20, (h.Item("ia", "a"), h.Item("ib", "b")))),
    ):
        told.add(at, event)
    return report.make(outcome(told), "2026-01-02", "2 cores")


def test_a_report_counts_messages_by_their_fate(good: report.Report) -> None:
    assert good.counts == report.Counts(
        sent=3,
        accepted=3,
        delivered=2,
        dropped=0,
        acknowledged=1,
        redeliveries=1,
        tries_failed=1,
        requests=8,
        pushed=1,
        dead_letters=0,
        restarts=1,
    )
    assert (good.delivery_p50, good.delivery_p99) == (0.5, 3.0)


def test_what_was_damaged() -> None:
    found = report.make(outcome(damaged()), "2026-01-02", "2 cores")
    assert found.violations == []
    assert (found.counts.damaged, found.counts.damaged_delivered, found.counts.damaged_dead_letters) == (3, 1, 1)
    assert "| damaged in a store; delivered from another copy; dead letters `damaged` | 3, 1, 1 |" in report.markdown(
        [found]
    )
    known = report.trails(damaged())
    assert report.recovery(50.0, known) is None, "what is damaged need not come, so nobody waits for it"


def test_a_dead_letter_of_what_nobody_damaged_is_a_violation() -> None:
    told = story()
    told.add(60.0, h.Buried("ib", "damaged"))
    (broken,) = report.make(outcome(told), "2026-01-02", "2 cores").violations
    assert broken.promise == "sealed as sent"


def test_a_run_from_before_there_was_damage_is_read(good: report.Report, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    report.save(good, path)
    earlier = json.loads(path.read_bytes())
    for name in [name for name in earlier["counts"] if name.startswith("damaged")]:
        del earlier["counts"][name]
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert report.load(path) == good


def test_a_fault_is_over_when_what_it_hit_is_there(good: report.Report) -> None:
    """What goes to users who come and go does not count: nobody knows when they read."""
    recovered = {strike.target: strike.recovered for strike in good.faults}
    assert recovered == {"serve-api 1": 3.0, "redis": 0.5, "serve-api 2": None, "one <process>": None}


def test_what_was_under_way_counts_from_the_fault_on() -> None:
    known = report.trails(story())
    assert report.recovery(11.0, known) == 2.5
    assert report.recovery(13.6, known) == 0.5, "it was there already; the next one counts"
    known["b"].delivered = None
    assert report.recovery(39.5, known) is None


def test_faults_are_counted_by_kind(good: report.Report) -> None:
    assert report.fault_rows(good) == [
        ["kill serve-api", "2", "1.0 s", "3.0 s", "3.0 s"],
        ["pause redis", "1", "4.0 s", "500 ms", "500 ms"],
        ["reshape", "1", "1.0 s", "-", "-"],
    ]


def test_the_timeline(good: report.Report) -> None:
    by_time = {moment.at: moment for moment in good.timeline}
    assert by_time[10.0] == report.Moment(10.0, 1, 1, 1, 3.0, 3.0)
    assert by_time[20.0] == report.Moment(20.0, 0, 0, 0, None, None)
    assert sum(moment.accepted for moment in good.timeline) == 3


def test_a_violation_comes_with_its_history(bad: report.Report) -> None:
    (broken,) = bad.violations
    assert (broken.promise, broken.at) == ("acknowledged stays away", 50.5)
    told = "\n".join(broken.history)
    assert "sent id ia" in told, "how it was accepted"
    assert "acking ids ('ia',)" in told
    assert "#5 acked" in told
    assert "serve-api 1 is back" in told, "and what failed meanwhile"
    assert "ie" not in told.replace("serve-api", ""), "nothing of other messages"
    assert broken.history[-1].endswith("got a (ia) and 1 others")


def test_a_report_shows_its_counts_in_plain_text(good: report.Report, bad: report.Report) -> None:
    text = "\n".join(aligned(table) for table in report.tables(good))
    assert "4 faults in 60 s, seed 7" in text
    assert re.search(r"^accepted +3$", text, re.MULTILINE)
    assert re.search(r"^in order +reordered +0$", text, re.MULTILINE)
    assert report.verdict(good) == "every promise kept: 3 messages through 4 faults"
    assert report.verdict(bad) == "1 violation; again: make chaos ARGS='--topology production' MINUTES=1 SEED=7"


def test_a_report_shows_its_counts_in_markdown(good: report.Report, bad: report.Report) -> None:
    text = report.markdown([good, bad])
    assert "| messages accepted | 3 | 3 |" in text
    assert "| **acknowledged and back** | 0 | 1 |" in text
    assert "| kill serve-api | 2: 3.0 s, 3.0 s | 2: 3.0 s, 3.0 s |" in text


def test_a_saved_report_loads_unchanged(bad: report.Report, tmp_path: Path) -> None:
    report.save(bad, tmp_path / "run.json")
    assert report.load(tmp_path / "run.json") == bad


def test_the_page_needs_nothing_but_itself(good: report.Report) -> None:
    text = page.html(good)
    assert "<script" not in text
    assert re.findall(r"(?:src|href|url)\s*[=(]", text) == []
    assert "prefers-color-scheme: dark" in text


def test_the_page_shows_each_fault_and_what_was_found(good: report.Report, bad: report.Report) -> None:
    drawings = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page.html(good), re.DOTALL)]
    bars = [bar for bar in drawings[0].iter("rect") if bar.get("class") in {"kill", "pause"}]
    assert len(bars) == 3
    assert len(list(drawings[1].iter("circle"))) == 2
    assert 'class="verdict good"' in page.html(good)
    assert 'class="verdict bad"' in page.html(bad)
    assert "came back" in page.html(bad)
    assert "one <process>" not in page.html(good), "names are text"


def test_a_page_of_a_run_in_which_nothing_happened() -> None:
    empty = report.make(Outcome("embedded", Options(), h.History(), [], 0, 0.0, []), "2026-01-02", "2 cores")
    for svg in re.findall(r"<svg.*?</svg>", page.html(empty), re.DOTALL):
        ET.fromstring(svg)
    assert report.verdict(empty) == "every promise kept: 0 messages through 0 faults"
