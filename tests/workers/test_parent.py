"""The process that starts workers, with workers that do nothing but what a test has them do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router.config import Config, Server
from router.workers import parent
from router.workers.order import Program
from router.workers.parent import Unit

pytestmark = pytest.mark.anyio
EVENT_SECONDS = 60.0
MISCONFIGURED = 78
WORKER = """
import asyncio, os, socket, sys
from router.workers.link import Link

async def main():
    stop = asyncio.Event()
    async def serving():
        {serving}
    async def drain():
        {drain}
        stop.set()
    async def state():
        return {{"draining": False, "failed": [], "limited": []}}
    async def metrics():
        return ""
    answers = {{"serving": serving, "drain": drain, "state": state, "metrics": metrics}}
    async with Link(socket.socket(fileno=int(sys.argv[1])), answers, lambda: os._exit(3)):
        await stop.wait()

sys.stdin.buffer.read()
asyncio.run(main())
"""
ALWAYS = "pass"


class Attempts:
    """Stands for ``backoff``: no pause, and the numbers of the deaths that it was asked for."""

    def __init__(self, count: int) -> None:
        self.numbers: list[int] = []
        self.reached = asyncio.Event()
        self._count = count

    def __call__(self, attempt: int, *_: object, **__: object) -> float:
        self.numbers.append(attempt)
        if len(self.numbers) == self._count:
            self.reached.set()
        return 0.001


def program(serving: str = ALWAYS, drain: str = ALWAYS) -> Program:
    return Program([sys.executable, "-c", WORKER.format(serving=serving, drain=drain)], MISCONFIGURED)


def unit(serving: str = ALWAYS, drain: str = ALWAYS) -> Unit:
    config = Config(server=Server(api_port=0, ws_port=0, admin_port=0, drain_seconds=0.1))
    return Unit(config, "serve", 2, program(serving, drain))


@asynccontextmanager
async def running(unit: Unit) -> AsyncIterator[asyncio.Task[int]]:
    async with asyncio.timeout(EVENT_SECONDS):
        task = asyncio.create_task(unit.run())
        while not unit._complete:
            assert not task.done()
            await asyncio.sleep(0.01)
        yield task


async def ended(unit: Unit) -> int:
    async with asyncio.timeout(EVENT_SECONDS):
        return await unit.run()


@pytest.mark.parametrize(("how", "code"), [(ALWAYS, 0), ("os._exit(70)", 70), ("os.kill(os.getpid(), 9)", 1)])
async def test_how_a_worker_ends_when_it_drains_is_how_the_service_ends(how: str, code: int) -> None:
    unit_ = unit(drain=how)
    async with running(unit_) as task:
        unit_._stop.set()
        assert await task == code


async def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "LAST_SECONDS", 0.1)
    unit_ = unit(drain="await asyncio.Event().wait()")
    async with running(unit_) as task:
        pids = [worker.process.pid for worker in unit_._workers.values()]
        unit_._stop.set()
        assert await task == 0
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.parametrize(("how", "code"), [("os._exit(69)", 69), ("os.kill(os.getpid(), 9)", 1)])
async def test_a_service_that_has_never_been_ready_ends_with_its_first_worker(how: str, code: int) -> None:
    assert await ended(unit(serving=how)) == code


@pytest.mark.parametrize(("steady", "numbers"), [(60.0, [1, 2, 3]), (0.0, [1, 1, 1])])
async def test_deaths_in_a_row_are_counted(steady: float, numbers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """For the pauses between them; one that had served long enough is a first one."""
    attempts = Attempts(3)
    monkeypatch.setattr(parent, "STEADY_SECONDS", steady)
    monkeypatch.setattr(parent, "backoff", attempts)
    unit_ = unit()
    async with running(unit_) as task:
        unit_._program = program(serving="asyncio.get_running_loop().call_later(0.01, os._exit, 70)")
        unit_._workers[2].process.kill()
        await attempts.reached.wait()
        unit_._stop.set()
        await task
    assert attempts.numbers[1:3] == numbers[1:]


async def test_one_that_is_misconfigured_ends_all() -> None:
    unit_ = unit()
    async with running(unit_) as task:
        unit_._program = Program([sys.executable, "-c", f"raise SystemExit({MISCONFIGURED})"], MISCONFIGURED)
        unit_._workers[2].process.kill()
        assert await task == MISCONFIGURED


async def test_a_system_that_starts_no_process_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not while the service starts: then it is told."""
    attempts, start = Attempts(2), asyncio.create_subprocess_exec

    async def refuse(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(parent, "backoff", attempts)
    unit_ = unit()
    async with running(unit_) as task:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
        unit_._workers[2].process.kill()
        await attempts.reached.wait()
        with pytest.raises(BlockingIOError):
            await ended(unit())
        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        while (await unit_._ask()).failed:
            pass
        unit_._stop.set()
        assert await task == 0
