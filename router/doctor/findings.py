"""What a check says: what it found, how bad that is, why it matters, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct


class Severity(StrEnum):
    """How bad a finding is, from the best to the worst."""

    FINE = "fine"
    """It is as it should be."""
    NOTE = "note"
    """Worth knowing; nothing to mend, or nothing that could be checked."""
    WARNING = "warning"
    """It works now, and will hurt in production."""
    ERROR = "error"
    """It does not work, or loses mail."""

    @property
    def rank(self) -> int:
        """0 is the best."""
        return list(Severity).index(self)


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    """Which one: ``area.thing``, stable; several findings may be of one, as where there are several servers."""
    severity: Severity
    """``fine``, ``note``, ``warning`` or ``error``."""
    found: str
    """What is the case, in one line, without a secret."""
    why: str = ""
    """Why it matters; empty where it is fine."""
    mend: str = ""
    """The command or the setting that mends it; empty where there is nothing to mend."""


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


def note(check: str, found: str, why: str = "", mend: str = "") -> Finding:
    return Finding(check, Severity.NOTE, found, why, mend)


def warning(check: str, found: str, why: str, mend: str) -> Finding:
    return Finding(check, Severity.WARNING, found, why, mend)


def error(check: str, found: str, why: str, mend: str) -> Finding:
    return Finding(check, Severity.ERROR, found, why, mend)
