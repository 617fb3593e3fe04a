"""Comparing clocks, without taking the time of the answer for a difference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from router.clock import MICROSECONDS, apart
from router.doctor import clocks
from router.findings import Finding, Severity, judge_clock
from tests.support.clock import ManualClock
from tests.support.identity import identity_service

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("ahead", "severity", "words"),
    [
        (0.0, Severity.FINE, "agree"),
        (-1.9, Severity.FINE, "agree"),
        (5.0, Severity.WARNING, "5.0 s ahead of"),
        (-5.0, Severity.WARNING, "5.0 s behind"),
        (30.0, Severity.ERROR, "30.0 s ahead of"),
    ],
)
async def test_doctor_judges_how_far_a_clock_is_ahead(ahead: float, severity: Severity, words: str) -> None:
    finding = judge_clock("clock.redis", "the Redis", ahead, 10)
    assert finding.severity is severity
    assert words in finding.found


@pytest.mark.parametrize(("theirs", "expected"), [(5, 0.0), (0, 0.0), (10, 0.0), (-3, 3.0), (14, -4.0)])
async def test_what_the_answer_took_is_no_difference(theirs: int, expected: float) -> None:
    assert apart(0, 10 * MICROSECONDS, theirs * MICROSECONDS) == expected


async def by_http(url: str, clock: ManualClock) -> Finding:
    (finding,) = [finding async for finding in clocks.by_http("clock.x", url, clock, 10)]
    return finding


@pytest.mark.parametrize(("ahead", "severity"), [(0.5, Severity.FINE), (-5, Severity.WARNING), (600, Severity.ERROR)])
async def test_the_date_of_an_answer(tmp_path: Path, ahead: float, severity: Severity) -> None:
    told = datetime(2027, 1, 1, 12, tzinfo=UTC)
    with identity_service(tmp_path) as identity:
        identity.date = format_datetime(told, usegmt=True)
        clock = ManualClock(int((told + timedelta(seconds=ahead)).timestamp() * MICROSECONDS))
        assert (await by_http(identity.url, clock)).severity is severity
        identity.date = "yesterday"
        assert (await by_http(identity.url, clock)).severity is Severity.NOTE
    assert "does not answer" in (await by_http(identity.url, clock)).found
