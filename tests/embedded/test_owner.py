"""Whose the data directory and its files are, and who else may enter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.auth.embedded import EmbeddedKey, idempotency_secret
from router.backends.embedded import checks as embedded
from router.backends.embedded import schema
from router.data_dir import IDEMPOTENCY_KEY, KEYS, SIGNING_KEY
from router.errors import DataDirError
from router.findings import Severity

SOMEBODY = 4711


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    schema.prepare(directory)
    EmbeddedKey.open(directory)
    idempotency_secret(directory)
    return directory


@pytest.fixture
def owned(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what belongs to somebody else, in this fixture's list; the rest is this user's."""
    names = list[str]()
    stat = Path.stat

    def told(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = stat(path, follow_symlinks=follow_symlinks)
        if path.name not in names:
            return found
        return os.stat_result((*found[:4], SOMEBODY, *found[5:10]))

    monkeypatch.setattr(Path, "stat", told)
    del data_dir
    return names


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("name", ["data", schema.FILE_NAME])
def test_a_directory_or_a_database_of_another_user_is_refused(data_dir: Path, owned: list[str], name: str) -> None:
    owned.append(name)
    with pytest.raises(DataDirError, match=rf"{name} belongs to user {SOMEBODY}.*chown.*embedded\.data_dir"):
        schema.prepare(data_dir)
    (found,) = [finding for finding in embedded.data_dir(data_dir, 0) if finding.check == "embedded.owner"]
    assert found.severity is Severity.ERROR
    assert f"user {SOMEBODY}" in found.found


@pytest.mark.parametrize("name", ["data", KEYS, SIGNING_KEY])
def test_a_key_of_another_user_is_refused(data_dir: Path, owned: list[str], name: str) -> None:
    owned.append(name)
    with pytest.raises(DataDirError, match=f"{name} belongs to user {SOMEBODY}"):
        EmbeddedKey.open(data_dir)


def test_a_volume_of_a_group_is_not(data_dir: Path, owned: list[str]) -> None:
    """fsGroup: the volume may be root's or another pod's, and is open to a group of this one."""
    data_dir.chmod(0o2770)
    (data_dir / schema.FILE_NAME).chmod(0o660)
    owned += ["data", schema.FILE_NAME]
    schema.prepare(data_dir)
    assert mode(data_dir) == 0o2770
    assert mode(data_dir / schema.FILE_NAME) == 0o660


def test_what_others_may_read_is_shut(data_dir: Path) -> None:
    files = [data_dir / schema.FILE_NAME, data_dir / KEYS / SIGNING_KEY, data_dir / KEYS / IDEMPOTENCY_KEY]
    for path in files:
        path.chmod(0o644)
    (data_dir / KEYS).chmod(0o755)
    data_dir.chmod(0o777)
    schema.prepare(data_dir)
    EmbeddedKey.open(data_dir)
    idempotency_secret(data_dir)
    assert [mode(path) for path in files] == [0o600] * 3
    assert mode(data_dir / KEYS) == 0o700
    assert mode(data_dir) == 0o755, "who may enter finds nothing to read; it may hold more than the router's"


def test_keys_lie_apart_from_the_database(data_dir: Path) -> None:
    assert {path.name for path in data_dir.iterdir() if path.is_dir()} == {KEYS}
    assert mode(data_dir / KEYS) == mode(data_dir) == 0o700
    assert {path.name for path in (data_dir / KEYS).iterdir()} == {SIGNING_KEY, IDEMPOTENCY_KEY, "keys.lock"}


def test_keys_of_an_earlier_version_go_on(data_dir: Path) -> None:
    first, secret = EmbeddedKey.open(data_dir), idempotency_secret(data_dir)
    for name in (SIGNING_KEY, IDEMPOTENCY_KEY):
        (data_dir / KEYS / name).rename(data_dir / name)
    assert (EmbeddedKey.open(data_dir).kid, idempotency_secret(data_dir)) == (first.kid, secret)
    assert {path.name for path in (data_dir / KEYS).iterdir()} == {"keys.lock"}
