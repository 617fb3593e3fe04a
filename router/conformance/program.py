"""The client under test: a command that receives, sends, or lists what it has saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from router.conformance.verdicts import Failed

STDERR = "stderr.txt"
LAST_WORDS = 300
"""Characters of its stderr that are shown when it ended by itself."""


class Program:
    """Runs the command in a folder of its own; ``running`` is that which receives."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], patience: float) -> None:
        """It may take ``patience`` seconds to send or to list."""
        self._command = command
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._patience = patience
        self._receiving: asyncio.subprocess.Process | None = None

    async def receive(self) -> None:
        """Start ``receive``."""
        self._receiving = await self._start("receive", output=asyncio.subprocess.DEVNULL)

    def ended(self) -> str | None:
        """How ``receive`` ended by itself; ``None`` while it runs."""
        process = self._receiving
        return None if process is None or process.returncode is None else self._words("receive", process.returncode)

    async def kill(self) -> None:
        """End ``receive`` as a crash does."""
        if self._receiving is not None:
            await _end(self._receiving)
            self._receiving = None

    async def send(self, envelopes: Sequence[bytes]) -> list[str]:
        """What ``send`` prints, a line for each envelope."""
        return await self._run("send", b"".join(each + b"\n" for each in envelopes))

    async def saved(self) -> list[tuple[str, str]]:
        """Id and ``encryptedData`` of each message that ``list`` prints, in its order."""
        lines = [line.split(" ") for line in await self._run("list")]
        if broken := next((line for line in lines if len(line) > 2), None):
            raise Failed(f'`list` printed {" ".join(broken)[:60]!r}, and not "ID BASE64"')
        # A message of no bytes has no BASE64.
        return [(id_, "".join(data)) for id_, *data in lines]

    async def _run(self, role: str, stdin: bytes | None = None) -> list[str]:
        process = await self._start(role, output=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(self._patience):
                output, _ = await process.communicate(stdin)
        except TimeoutError:
            raise Failed(f"`{role}` did not end within {self._patience:g} s") from None
        finally:
            await _end(process)
        if process.returncode:
            raise Failed(self._words(role, process.returncode))
        return [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]

    async def _start(self, role: str, output: int) -> asyncio.subprocess.Process:
        with (self._folder / STDERR).open("ab") as errors:
            try:
                return await asyncio.create_subprocess_exec(
                    *self._command,
                    role,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=asyncio.subprocess.PIPE if role == "send" else asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,  # so that what it has started is killed with it
                )
            except OSError as error:
                raise Failed(f"cannot run {self._command[0]}: {error.strerror}") from error

    def _words(self, role: str, code: int) -> str:
        said = (self._folder / STDERR).read_text(errors="replace").strip()[-LAST_WORDS:]
        return f"`{role}` ended with {code}" + (f": …{said}" if said else "")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # It has ended, and so has what it started.
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
