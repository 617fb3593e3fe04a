"""The data directory, looked at without changing it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from router.backends.embedded import checks as embedded
from router.backends.embedded import integrity, space
from router.backends.embedded.schema import FILE_NAME, VERSION, create, prepare, set_up
from router.findings import Finding, Severity
from tests.contract.stage import BOB

PAGE = 2048


def look(path: Path, reserve_bytes: int = 0) -> dict[str, Finding]:
    return {finding.check: finding for finding in embedded.data_dir(path, reserve_bytes)}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


def test_doctor_finds_a_good_database_fine_and_does_not_change_it(data_dir: Path) -> None:
    before = (data_dir / FILE_NAME).read_bytes()
    found = look(data_dir)
    assert {check: f.severity for check, f in found.items() if f.severity is not Severity.FINE} == {
        "embedded.processes": Severity.NOTE
    }
    assert (data_dir / FILE_NAME).read_bytes() == before
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in data_dir.iterdir()} == {FILE_NAME}


def test_too_little_room_is_an_error_that_says_what_follows(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RACES 47."""
    monkeypatch.setattr(space, "volume", lambda path: space.Volume(1 << 40, 2 << 30))
    found = look(data_dir, reserve_bytes=3 << 30)["embedded.room"]
    assert found.severity is Severity.ERROR
    assert "3072 MiB" in found.why
    assert look(data_dir, reserve_bytes=1 << 30)["embedded.room"].severity is Severity.FINE


def test_a_file_that_gives_nothing_back_is_named_with_what_it_takes(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        set_up(db)
        create(db)
        db.execute("CREATE TABLE big AS SELECT zeroblob(3000000)")
        db.execute("DROP TABLE big")
    path.chmod(0o600)
    found = look(tmp_path)["embedded.free_pages"]
    assert found.severity is Severity.WARNING
    assert found.found.startswith("3 MiB")
    command = found.fix.partition("; ")[2]
    subprocess.run(["sh", "-c", command.replace("python3", sys.executable)], check=True)
    assert "embedded.free_pages" not in look(tmp_path)


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = look(tmp_path / "none")
    assert found["embedded.data_dir"].severity is Severity.NOTE
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir(mode=0o700)
    assert look(tmp_path / "empty")["embedded.database"].severity is Severity.NOTE
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_file_in_its_place_or_above_it_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for path in (file, file / "below", file / "far" / "below"):
        found = look(path)["embedded.data_dir"]
        assert found.severity is Severity.ERROR
        assert f"{file} is n" in found.found


@pytest.mark.parametrize("path", [Path("/proc/none"), Path("/proc/none/below")])
def test_one_that_cannot_be_made_is_an_error(path: Path) -> None:
    """Not even by root."""
    found = look(path)["embedded.data_dir"]
    assert found.severity is Severity.ERROR
    assert "cannot create it" in found.found


def test_one_that_could_be_made_leaves_no_trace(tmp_path: Path) -> None:
    assert look(tmp_path / "far" / "below")["embedded.data_dir"].severity is Severity.NOTE
    assert list(tmp_path.iterdir()) == []


def test_rights_that_are_too_wide(data_dir: Path) -> None:
    data_dir.chmod(0o750)
    assert "may enter" in look(data_dir)["embedded.data_dir"].found
    (data_dir / FILE_NAME).chmod(0o644)
    finding = look(data_dir)["embedded.data_dir"]
    assert finding.severity is Severity.WARNING
    assert FILE_NAME in finding.found
    assert finding.fix == f"chmod -R go= {data_dir}"


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert look(tmp_path / "file")["embedded.data_dir"].severity is Severity.ERROR
    assert look(tmp_path / "file" / "data")["embedded.data_dir"].severity is Severity.ERROR


@pytest.mark.parametrize(("version", "severity"), [(VERSION + 1, Severity.ERROR), (VERSION - 1, Severity.NOTE)])
def test_doctor_judges_the_schema_version_of_the_database(data_dir: Path, version: int, severity: Severity) -> None:
    with closing(sqlite3.connect(data_dir / FILE_NAME)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    assert look(data_dir)["embedded.database"].severity is severity


def test_a_torn_database(data_dir: Path) -> None:
    (data_dir / FILE_NAME).write_bytes(b"no database" * 1000)
    finding = look(data_dir)["embedded.database"]
    assert finding.severity is Severity.ERROR
    assert "restore" in finding.fix


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="locks are listed on Linux only")
def test_whoever_holds_a_lock_is_named_and_not_disturbed(data_dir: Path) -> None:
    with (data_dir / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert look(data_dir)["embedded.processes"].found == f"`router serve` runs as process {os.getpid()}"
    assert look(data_dir)["embedded.processes"].severity is Severity.NOTE


def test_a_disk_in_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, severity in (("nfs4", Severity.ERROR), ("tmpfs", Severity.ERROR), ("ext4", Severity.FINE)):
        monkeypatch.setattr(embedded, "_mounted_as", lambda _, kind=kind: kind)
        assert look(tmp_path)["embedded.file_system"].severity is severity


def test_a_disk_that_refuses_to_sync(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    assert look(data_dir)["embedded.sync"].found == "fsync fails: Input/output error"
    assert look(data_dir)["embedded.sync"].severity is Severity.ERROR


def test_an_intact_database(data_dir: Path) -> None:
    assert look(data_dir)["embedded.integrity"].severity is Severity.FINE
    assert look(data_dir)["embedded.checksums"].severity is Severity.FINE


def put(data_dir: Path, count: int, *, checksum: int | None) -> None:
    with closing(sqlite3.connect(data_dir / FILE_NAME)) as db, db:
        rows = [(n, f"m{n}", BOB, b"x" * 900, checksum) for n in range(count)]
        db.executemany(
            "INSERT INTO cold (user, lane, sequence, id, queued_at, accepted_at, keyed, attempts, envelope, checksum)"
            " VALUES (?3, 1, ?1, ?2, 1, 1, 0, 1, ?4, ?5)",
            rows,
        )


def test_messages_that_do_not_match_their_checksums(data_dir: Path) -> None:
    put(data_dir, 3, checksum=1)
    finding = look(data_dir)["embedded.checksums"]
    assert (finding.severity, finding.found) == (
        Severity.ERROR,
        "3 messages in cold do not match their checksums",
    )


def test_an_index_that_misses_mail_is_named_with_what_mends_it(data_dir: Path) -> None:
    """RACES 42: a flipped bit in an index hides a message, and no checksum tells."""
    put(data_dir, 1, checksum=None)
    path = data_dir / FILE_NAME
    content = bytearray(path.read_bytes())
    at = max(i for i in range(len(content)) if content.startswith(b"bobm0", i))
    content[at] ^= 1
    path.write_bytes(content)
    finding = look(data_dir)["embedded.integrity"]
    assert finding.severity is Severity.ERROR
    assert "cold_place" in finding.found
    exec(finding.fix.partition('python3 -c "')[2].rstrip('"'))
    assert look(data_dir)["embedded.integrity"].severity is Severity.FINE


def test_a_page_of_zeroes(data_dir: Path) -> None:
    put(data_dir, 50, checksum=None)
    path = data_dir / FILE_NAME
    content = bytearray(path.read_bytes())
    at = content.rindex(b"x" * 900) // PAGE * PAGE
    content[at : at + PAGE] = bytes(PAGE)
    path.write_bytes(content)
    finding = look(data_dir)["embedded.integrity"]
    assert finding.severity is Severity.ERROR
    assert ".dump" in finding.fix


def test_a_large_file_is_looked_at_for_a_time(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(data_dir, 50, checksum=None)
    monkeypatch.setattr(embedded, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(integrity, "STEPS", 1)
    assert look(data_dir)["embedded.integrity"].severity is Severity.NOTE
    assert look(data_dir)["embedded.checksums"].severity is Severity.NOTE
