"""How many cores ``auto`` stands for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router import cores


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {"": "max 100000\n"}, 8),
        ("0::/\n", {"": "200000 100000\n"}, 2),
        ("0::/\n", {"": "150000 100000\n"}, 2),
        ("0::/\n", {"": "50000 100000\n"}, 1),
        ("0::/system.slice/router.service\n", {"system.slice/router.service": "max 100000\n"}, 8),
        ("0::/system.slice/router.service\n", {"system.slice": "300000 100000\n"}, 3),
        ("9:name=systemd:/\n1:cpu:/\n", {}, 8),
        ("0::/\n", {"": "what is this\n"}, 8),
    ],
)
def test_the_cores_of_the_machine_or_what_a_container_may_use(
    own: str, quotas: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text(own)
    for group, quota in quotas.items():
        (tmp_path / "groups" / group).mkdir(parents=True)
        (tmp_path / "groups" / group / "cpu.max").write_text(quota)
    assert cores.usable(tmp_path / "groups", tmp_path / "own") == expected


def test_a_system_without_control_groups_has_the_cores_that_it_has(tmp_path: Path) -> None:
    assert cores.usable(tmp_path, tmp_path / "none") == len(os.sched_getaffinity(0))
