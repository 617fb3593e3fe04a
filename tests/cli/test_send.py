"""What ``send`` makes of its arguments, as the recipient gets it."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from tests.support.servers import free_port
from tests.support.service import Router

DATA = (b"hello", "grüß ☃".encode(), b"\xff\xfe sealed \x80\xc3", bytes(range(1, 256)))
BARE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("locale", [{"PYTHONUTF8": "1"}, BARE], ids=["UTF-8", "C"])
def test_data_is_sent_byte_for_byte(tmp_path: Path, locale: dict[str, str]) -> None:
    router = Router(tmp_path / "data", locale)
    inbox = tmp_path / "inbox"
    with router.running():
        for data in DATA:
            router.cli("send", "--as", "alice", "--to", "bob", "--data", os.fsdecode(data))
        for _ in range(20):  # routing may take a moment after a 202
            router.cli("listen", "--as", "bob", "--dir", str(inbox), "--once")
            files = sorted(inbox.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
            if len(files) == len(DATA):
                break
    assert [base64.b64decode(json.loads(file.read_bytes())["encryptedData"]) for file in files] == list(DATA)


def test_a_service_on_port_is_found(tmp_path: Path) -> None:
    """As in a container: PORT is all that service and commands are told."""
    router = Router(tmp_path / "data")
    router.api_port = free_port()
    router.environment["PORT"] = str(router.api_port)
    with router.running():
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "hello")
        listed = router.cli("listen", "--as", "bob", "--dir", str(tmp_path / "inbox"), "--once")
        router.cli("bench", "--messages", "3", "--people", "1", "--senders", "1")
    assert listed.count(".json") == 1
