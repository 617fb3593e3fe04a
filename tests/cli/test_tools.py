"""The check that the lock says what the project asks for: it must see what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.lock import lock_problems

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "requirements.lock", "requirements-lowest.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_an_untouched_lock_has_no_problems(copy: Path) -> None:
    assert lock_problems(copy) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "word"),
    [
        ("pyproject.toml", '"rich>=', '"rich>=999.', "is not met by rich"),
        ("pyproject.toml", '"rich>=', '"missing-thing>=', "missing-thing>=14 is not in it"),
        ("pyproject.toml", '"rich>=14"', '"rich>=13"', "rich>=13 is tried with 14.0.0"),
        ("requirements.lock", "anyio==", "--index-url https://example.com\nanyio==", "holds an address"),
    ],
)
def test_a_wrong_lock_is_told(copy: Path, name: str, old: str, new: str, word: str) -> None:
    path = copy / name
    path.write_text(path.read_text().replace(old, new, 1))
    assert any(word in problem for problem in lock_problems(copy))


def test_a_pin_without_a_hash_is_told(copy: Path) -> None:
    path = copy / "requirements.lock"
    lines = path.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("anyio=="))
    hashes = [index for index, line in enumerate(lines[start + 1 :], start + 1) if "--hash" in line][:2]
    path.write_text("\n".join(line for index, line in enumerate(lines) if index not in hashes))
    assert "requirements.lock: anyio is not pinned with a hash" in lock_problems(copy)
