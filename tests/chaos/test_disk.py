"""A round of damage on the real thing, and what the judge of it can tell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from router.backends.embedded.schema import FILE_NAME
from tests.chaos import disk
from tests.chaos.disk import Damage, apply, plan


def test_a_seed_is_a_plan_and_everything_comes() -> None:
    assert plan(7) == plan(7)
    kinds = Counter((damage.kind, damage.file) for damage in map(plan, range(300)))
    assert len(kinds) == 6
    assert min(kinds.values()) > 10


@pytest.mark.parametrize(
    ("kind", "left"),
    [("flip", b"a" * 5 + b"q" + b"a" * 4), ("zero", bytes(10)), ("truncate", b"a" * 5)],
)
def test_damage_is_done(tmp_path: Path, kind: str, left: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"a" * 10)
    assert apply(Damage(FILE_NAME, kind, (0.5,), (4,), folded=False, running=False), tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == left
    assert not apply(Damage("nothing", kind, (0.5,), (4,), folded=False, running=False), tmp_path)


def test_mail_in_a_damaged_file_is_served_as_it_was_sent_or_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RACES 42: bits of envelopes, in the file of a router that was killed."""
    monkeypatch.setattr(disk, "MESSAGES", 12)
    monkeypatch.setattr(
        disk, "plan", lambda _: Damage(FILE_NAME, "flip", (0.6, 0.7, 0.8), (1, 1, 1), folded=True, running=False)
    )
    _, became, faults = disk.run(1, tmp_path)
    assert faults == []
    assert became
