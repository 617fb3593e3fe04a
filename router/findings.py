"""What a check says: what it found, how bad that is, why it matters, and how to fix it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from enum import StrEnum

from msgspec import Struct, field

from router.config.roles import Role

OFF_SECONDS = 2.0
"""An HTTP date has a resolution of one second; a difference above this is not due to rounding."""
CLOCK_WHY = (
    "Each node judges leases, tokens and ephemeral messages by its own clock. A wrong clock ends presence too early or "
    "too late and rejects valid tokens."
)
CLOCK_FIX = "run a time service on every node: timedatectl set-ntp true"


WITHOUT = {
    Role.INGRESS: "Without it no message is accepted: senders get 503.",
    Role.ONLINE: "Without it nobody counts as online: all mail goes to cold, and clients learn of it by push commands "
    "only.",
    Role.COLD: "Without it, mail for users who are offline waits in the ingress, and nobody gets the mail that is in "
    "cold.",
}
"""What follows while nothing keeps a role."""


class Severity(StrEnum):
    """How bad a finding is, from the best to the worst."""

    FINE = "fine"
    """It is as it should be."""
    NOTE = "note"
    """Worth knowing; nothing to fix, or nothing that could be checked."""
    WARNING = "warning"
    """It works now, but will cause trouble in production."""
    ERROR = "error"
    """It does not work, or loses mail."""

    @property
    def rank(self) -> int:
        """0 is the best."""
        return list(Severity).index(self)


class Finding(Struct, frozen=True):
    """One thing that was checked."""

    check: str
    """Which check: ``area.thing``, a stable name. One check may have several findings, such as one for each server."""
    severity: Severity
    """``fine``, ``note``, ``warning`` or ``error``."""
    found: str
    """What was found, in one line, without secrets."""
    why: str = ""
    """Why it matters; empty if all is fine."""
    fix: str = field(default="", name="mend")
    """The command or the setting that fixes it; empty if there is nothing to fix. The key of ``--json`` is public."""


class Diagnosis(Struct, frozen=True):
    """All findings of one run."""

    worst: Severity
    """The severity of the worst finding."""
    findings: list[Finding]

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Diagnosis:
        """The findings, in their order."""
        listed = list(findings)
        return cls(max((f.severity for f in listed), key=lambda s: s.rank, default=Severity.FINE), listed)


Look = Callable[[], AsyncIterator[Finding]]


class Check(Struct, frozen=True):
    """Looks at one thing over connections of its own, and says one finding after another."""

    name: str
    """The ``check`` of the finding which says that it did not come to its end."""
    look: Look
    """May raise ``RouterError``: then that is the last finding."""
    why: str
    """What follows while the thing is down."""
    fix: str
    """What to do when it is."""


def on_a_thread(findings: Callable[[], Iterable[Finding]]) -> Look:
    """Look there: a disk that hangs must not hang the other checks."""

    async def look() -> AsyncIterator[Finding]:
        for finding in await asyncio.to_thread(lambda: list(findings())):
            yield finding

    return look


def fine(check: str, found: str) -> Finding:
    return Finding(check, Severity.FINE, found)


def note(check: str, found: str, why: str = "", fix: str = "") -> Finding:
    return Finding(check, Severity.NOTE, found, why, fix)


def warning(check: str, found: str, why: str, fix: str) -> Finding:
    return Finding(check, Severity.WARNING, found, why, fix)


def error(check: str, found: str, why: str, fix: str) -> Finding:
    return Finding(check, Severity.ERROR, found, why, fix)


def judge_clock(check: str, whose: str, apart_seconds: float, tolerated: float) -> Finding:
    """A finding for two clocks; ``apart_seconds`` is how far this one is ahead, ``tolerated`` what is forgiven."""
    apart = abs(apart_seconds)
    way = "ahead of" if apart_seconds > 0 else "behind"
    if apart < OFF_SECONDS:
        return fine(check, f"this clock agrees with that of {whose}")
    found = f"this clock is {apart:.1f} s {way} that of {whose}"
    return (error if apart > tolerated else warning)(check, found, CLOCK_WHY, CLOCK_FIX)
