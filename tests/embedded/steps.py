"""What a database does, step by step."""

from __future__ import annotations

import pytest

from router.backends.embedded.database import Database


def steps_of(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``database`` does from here on: the first words of its statements, and its syncs."""
    steps: list[str] = []
    sync = database._log.sync

    def noted() -> None:
        sync()
        steps.append("sync")

    database._writer.set_trace_callback(lambda statement: steps.append(statement.split()[0]))
    monkeypatch.setattr(database._log, "sync", noted)
    return steps
