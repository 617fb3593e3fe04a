"""What a check says: what it found, how bad that is, why it matters, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct, field


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


def fine(check: str, found: str) -> Finding:
    return Finding(check, Severity.FINE, found)


def note(check: str, found: str, why: str = "", fix: str = "") -> Finding:
    return Finding(check, Severity.NOTE, found, why, fix)


def warning(check: str, found: str, why: str, fix: str) -> Finding:
    return Finding(check, Severity.WARNING, found, why, fix)


def error(check: str, found: str, why: str, fix: str) -> Finding:
    return Finding(check, Severity.ERROR, found, why, fix)
