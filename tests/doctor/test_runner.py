"""What is down, slow or broken becomes a finding, and hides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.doctor.runner import examine
from router.errors import ConfigError, Unavailable
from router.findings import Check, Diagnosis, Finding, Look, Severity, error, fine, note, warning

pytestmark = pytest.mark.anyio


def check(name: str, look: Look) -> Check:
    return Check(name, look, f"why {name}", f"fix {name}")


async def well() -> AsyncIterator[Finding]:
    yield fine("well.thing", "good")


def failing(problem: Exception) -> Look:
    async def look() -> AsyncIterator[Finding]:
        yield fine("failing.first", "good")
        raise problem

    return look


async def test_a_dependency_that_is_down_is_a_finding_beside_the_others() -> None:
    down = Unavailable("the Redis does not answer")
    down.__cause__ = OSError("connection refused")
    found = await examine([check("down", failing(down)), check("well", well)], 5)
    assert [(f.check, f.severity) for f in found] == [
        ("failing.first", Severity.FINE),
        ("down", Severity.ERROR),
        ("well.thing", Severity.FINE),
    ]
    assert found[1] == error("down", "the Redis does not answer: connection refused", "why down", "fix down")


@pytest.mark.parametrize("problem", [ConfigError("no such database"), ZeroDivisionError("division by zero")])
async def test_no_failure_of_a_check_ends_the_run(problem: Exception) -> None:
    found = await examine([check("broken", failing(problem)), check("well", well)], 5)
    assert str(problem) in found[1].found
    assert found[1].severity is Severity.ERROR
    assert found[2].check == "well.thing"


async def test_a_check_that_never_answers_is_told_and_the_others_run_meanwhile() -> None:
    ended = asyncio.Event()

    async def hangs() -> AsyncIterator[Finding]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        yield fine("never", "")

    found = await examine([check("hangs", hangs), check("well", well), check("hangs too", hangs)], 0.05)
    assert [f.check for f in found] == ["hangs", "well.thing", "hangs too"]
    assert found[0].found == "no answer within 0.05 s"
    assert ended.is_set(), "it was told to close its connections"


async def test_checks_run_side_by_side() -> None:
    met = asyncio.Barrier(3)

    async def meets() -> AsyncIterator[Finding]:
        await met.wait()
        yield fine("meets", "all three were under way at once")

    found = await examine([check("a", meets), check("b", meets), check("c", meets)], 5)
    assert [f.severity for f in found] == [Severity.FINE] * 3


async def test_the_worst_finding_counts() -> None:
    findings = [fine("a", ""), note("b", ""), warning("c", "", "", ""), error("d", "", "", "")]
    for count, severity in enumerate(Severity, 1):
        assert Diagnosis.of(findings[:count][::-1]).worst is severity
    assert Diagnosis.of([]).worst is Severity.FINE
