"""The README's five minutes, as typed there: online, offline, and through a kill -9 of the router."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import Router

ROOT = Path(__file__).parents[2]
TRIES = 20
EXAMPLE = ROOT / "examples" / "sealed_sender"


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path / "data")


def example(tmp_path: Path, name: str, *arguments: str) -> bytes:
    command = [sys.executable, str(EXAMPLE / name), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def received(router: Router, tmp_path: Path, count: int) -> list[str]:
    """What bob reads once ``count`` messages have come; routing may take a moment after a 202."""
    inbox = tmp_path / "sealed"
    for _ in range(TRIES):
        router.cli("listen", "--as", "bob", "--dir", str(inbox), "--once")
        if len(list(inbox.glob("*.json"))) >= count:
            break
    return example(tmp_path, "open.py", "bob", *map(str, sorted(inbox.glob("*.json")))).decode().splitlines()


def write(router: Router, tmp_path: Path, text: str) -> None:
    envelope = example(tmp_path, "seal.py", "alice", "bob", text)
    assert text.encode() not in envelope
    router.cli("send", "--as", "alice", "-", stdin=envelope)


def test_the_sealed_sender_tour(router: Router, tmp_path: Path) -> None:
    example(tmp_path, "open.py", "bob")
    with router.running():
        write(router, tmp_path, "see you at eight")
        assert received(router, tmp_path, 1) == ["alice: see you at eight"]
        write(router, tmp_path, "even so")
    with router.running():
        assert received(router, tmp_path, 2) == ["alice: see you at eight", "alice: even so"]
    stored = b"".join(path.read_bytes() for path in router.data_dir.glob("router.db*"))
    assert b"see you" not in stored
    assert b"alice" not in stored


def test_a_message_for_another_is_not_opened(tmp_path: Path) -> None:
    for person in ("bob", "eve"):
        example(tmp_path, "open.py", person)
    sealed = tmp_path / "sealed.json"
    sealed.write_bytes(example(tmp_path, "seal.py", "alice", "bob", "for bob"))
    hers = tmp_path / "hers.json"
    hers.write_bytes(example(tmp_path, "seal.py", "alice", "eve", "for eve"))
    command = [sys.executable, str(EXAMPLE / "open.py"), "eve", str(sealed), str(hers)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"not sealed for this person" in done.stderr
    assert done.stdout == b"alice: for eve\n", "and keeps nobody from the others"


def test_listen_lists_each_message_once(router: Router, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    with router.running():
        ids = [router.cli("send", "--as", "alice", "--to", "bob", "--data", str(number)).strip() for number in range(3)]
        listed: list[str] = []
        for _ in range(TRIES):
            listed += router.cli("listen", "--as", "bob", "--dir", str(inbox), "--once").split()[::4]
            if len(listed) == len(ids):
                break
        assert listed == ids
        assert sorted(path.stem for path in inbox.iterdir()) == sorted(ids)
        assert router.cli("listen", "--as", "bob", "--dir", str(inbox), "--once") == ""
