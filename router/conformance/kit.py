"""Plays the moments against a command, several at once, over one real router."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock
from router.conformance.moments import Moment
from router.conformance.stage import Stage
from router.conformance.verdicts import Failed, Verdict
from router.errors import Unavailable

START_SECONDS = 60.0


class _Ready(Struct):
    event: str = ""
    listening: list[str] = []


_entry = msgspec.json.Decoder(_Ready).decode


async def judge(
    command: Sequence[str],
    moments: Sequence[Moment],
    folder: Path,
    *,
    patience: float,
    jobs: int,
    done: Callable[[Verdict], None] = lambda _: None,
) -> list[Verdict]:
    """The verdict on each of ``moments``, in their order; ``done`` is called with each when it is there.

    ``folder`` exists and is empty; each moment leaves there what the client has written and what was asked of the
    router. ``jobs`` moments are played at once. Raises ``Unavailable`` where the router does not start.
    """
    turns = asyncio.Semaphore(jobs)
    async with _router(folder) as url:
        key = EmbeddedKey.open(folder / "router")

        async def one(moment: Moment) -> Verdict:
            async with turns:
                own = folder / moment.name
                own.mkdir()
                stage = Stage(
                    moment.name,
                    url,
                    key,
                    SystemClock(),
                    command,
                    own,
                    patience=patience,
                    poll_seconds=moment.poll_seconds,
                )
                verdict = await _play(moment, stage)
            done(verdict)
            return verdict

        return list(await asyncio.gather(*map(one, moments)))


async def _play(moment: Moment, stage: Stage) -> Verdict:
    began, seen = time.monotonic(), ""
    try:
        async with stage:
            await moment.play(stage)
    except Failed as failed:
        seen = str(failed)
    seconds = round(time.monotonic() - began, 1)
    return Verdict(moment.name, moment.role, moment.story, moment.expected, not seen, seen, seconds)


@asynccontextmanager
async def _router(folder: Path) -> AsyncIterator[httpx.URL]:
    """The URL of a router of its own, with its data in ``folder``; pokes are not repeated there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    environment.pop("PORT", None)
    environment |= {
        "ROUTER_EMBEDDED__DATA_DIR": str(folder / "router"),
        "ROUTER_SERVER__API_PORT": "0",
        "ROUTER_SERVER__WS_PORT": "0",
        "ROUTER_SERVER__ADMIN_PORT": "0",
        "ROUTER_SERVER__LOG_FORMAT": "json",
        "ROUTER_ONLINE__REPOKE_SECONDS": "3600",
    }
    log = folder / "router.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", "serve", env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield httpx.URL(await _address(process, log))
    finally:
        with contextlib.suppress(ProcessLookupError):  # It has ended by itself.
            process.kill()
        await process.wait()


async def _address(process: asyncio.subprocess.Process, log: Path) -> str:
    """Where the router listens, as its log says."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                if (address := _logged(log)) is not None:
                    return address
                await asyncio.sleep(0.05)
    raise Unavailable(f"the router of the kit did not start: {_end_of(log)}")


def _logged(log: Path) -> str | None:
    for line in log.read_bytes().splitlines():
        with contextlib.suppress(msgspec.MsgspecError):  # A line that is half written, or none of the log.
            entry = _entry(line)
            if entry.event == "ready":
                return entry.listening[0]
    return None


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:]
