"""Runs checks side by side. What is down, slow or broken becomes a finding; none of it stops the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.errors import ConfigError, Forbidden, RouterError
from router.findings import Check, Finding, error

CLOSE_SECONDS = 3.0
"""A check that is told to end and has not closed its connections by then is left behind."""


async def examine(checks: Sequence[Check], seconds: float) -> list[Finding]:
    """The findings of all ``checks``, in the order of the checks; each may take ``seconds``."""
    found: list[list[Finding]] = [[] for _ in checks]
    tasks = [asyncio.create_task(_run(check, into, seconds)) for check, into in zip(checks, found, strict=True)]
    if tasks:
        await asyncio.wait(tasks, timeout=seconds + CLOSE_SECONDS)
    for check, into, task in zip(checks, found, tasks, strict=True):
        if not task.done():
            task.cancel()
            into.append(_slow(check, seconds))
        else:
            task.result()
    return [finding for findings in found for finding in findings]


async def _run(check: Check, into: list[Finding], seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            async for finding in check.look():
                into.append(finding)  # noqa: PERF401 - what came before a failure is kept
    except TimeoutError:
        into.append(_slow(check, seconds))
    except ConfigError as problem:
        into.append(error(check.name, str(problem), check.why, "change the configuration as it says"))
    except Forbidden as problem:
        into.append(error(check.name, _in_words(problem), check.why, "grant the rights that the documentation lists"))
    except RouterError as problem:
        into.append(error(check.name, _in_words(problem), check.why, check.fix))
    except Exception as problem:  # noqa: BLE001 - a check that fails must not hide what the others found
        into.append(error(check.name, f"the check failed: {_in_words(problem)}", check.why, check.fix))


def _slow(check: Check, seconds: float) -> Finding:
    return error(check.name, f"no answer within {seconds:g} s", check.why, check.fix)


def _in_words(problem: BaseException) -> str:
    """The error and what caused it, each once, on one line."""
    words: list[str] = []
    at: BaseException | None = problem
    while at is not None:
        text = " ".join(str(at).split()) or type(at).__name__
        if not any(text in said for said in words):
            words.append(text)
        at = at.__cause__
    return ": ".join(words)
