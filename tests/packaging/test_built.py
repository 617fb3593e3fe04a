"""What ``make dist`` builds holds what it needs to run, and what it needs to be tested."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.repository import ROOT, texts

Built = tuple[Path, Path]


def build(source: Path, into: Path, *words: str) -> Path:
    """As ``make dist`` does it."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", into, *words], cwd=source, check=True)
    return into


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel and the sdist."""
    folder = build(ROOT, tmp_path_factory.mktemp("dist"))
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def test_the_sdist_holds_the_repository(built: Built) -> None:
    with tarfile.open(built[1]) as archive:
        held = {Path(*Path(member.name).parts[1:]) for member in archive if member.isfile()}
    assert held == texts().keys() | {Path("PKG-INFO")}  # which an unpacked sdist has already


def test_the_wheel_holds_the_package(built: Built) -> None:
    """Scripts and queries too, and the mark that it has types."""
    with zipfile.ZipFile(built[0]) as archive:
        held = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {path for path in texts() if path.parts[0] == "router"}
    assert {path.suffix for path in held} >= {".py", ".sql", ".lua", ".typed"}


def test_the_sdist_builds_the_very_same_wheel(built: Built, tmp_path: Path) -> None:
    """Elsewhere and later: nothing of this folder, and no time, is in it."""
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build(source, tmp_path / "again", "-t", "wheel")
    assert (again / wheel.name).read_bytes() == wheel.read_bytes()
