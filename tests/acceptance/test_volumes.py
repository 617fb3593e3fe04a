"""Data directories as volumes of containers and other file systems give them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.service import Router, stop


def test_a_volume_that_is_opened_to_a_group_at_each_start(tmp_path: Path) -> None:
    """Kubernetes with ``securityContext.fsGroup``: each time that a pod starts, the kubelet makes all that is on a
    volume writable for the group."""
    router = Router(tmp_path / "data")
    with router.running() as process:
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "x")
        assert stop(process) == 0
    for path in (router.data_dir, *router.data_dir.rglob("*")):
        path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))
    with router.running() as process:
        router.cli("send", "--as", "alice", "--to", "bob", "--data", "y")
        assert json.loads(router.cli("inspect-queue", "bob", "--json"))["cold"]["messages"] == 2
        assert stop(process) == 0
