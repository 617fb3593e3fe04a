"""A command that only looks says where, and takes no empty directory for an empty queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.cli.exits import Code
from router.factory import Factory
from tests.cli.conftest import Router
from tests.support.backends import opened
from tests.support.service import Router as Service

LOOKING = (
    "inspect-queue",
    "inspect-queue bob --json",
    "dead-letters",
    "dead-letters discard --all --dry-run",
    "outbox",
    "migrate --stale",
    "migrate --all --dry-run",
)
by_command = pytest.mark.parametrize("command", LOOKING)


@by_command
def test_a_data_directory_without_a_database_is_refused_and_left_as_it_is(
    router: Router, data_dir: Path, command: str
) -> None:
    ended = router(*command.split())
    assert ended.returncode == Code.CONFIG
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: there is no router.db in {data_dir}, so no router has run there: ")
    assert not data_dir.exists()


@by_command
def test_commands_say_which_data_directory_they_read(
    router: Router, inside: Callable[[Callable[[Factory], Awaitable[None]]], None], data_dir: Path, command: str
) -> None:
    async def prepare(factory: Factory) -> None:
        await opened(factory, EmbeddedBackend)

    inside(prepare)
    ended = router(*command.split())
    assert (ended.returncode, ended.stderr) == (Code.OK, f"looking at embedded, {data_dir}\n")


def test_it_names_each_server_where_there_are_several(router: Router) -> None:
    environ = {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__URL": "redis://me:hunter2@127.0.0.1:1/0"}
    environ |= {"ROUTER_COLD__KIND": "firestore", "GOOGLE_CLOUD_PROJECT": "p", "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1"}
    ended = router("migrate", "--stale", **environ)
    first = ended.stderr.splitlines()[0]
    assert first == (
        "looking at online: redis, 127.0.0.1:1 (single); "
        "cold: firestore, project p, collection cold-queue, emulator 127.0.0.1:1"
    )
    assert "hunter2" not in ended.stderr


def test_whose_key_signed_a_token_that_is_refused(tmp_path: Path) -> None:
    """As where the router runs as another user, who has a data directory of his own."""
    service, other = Service(tmp_path / "data"), tmp_path / "other"
    with service.running():
        service.environment["ROUTER_EMBEDDED__DATA_DIR"] = str(other)
        ended = service.command("send", "--as", "alice", "--to", "bob", "--data", "hello")
    assert ended.returncode == Code.DENIED
    made, refused = ended.stderr.decode().splitlines()
    assert made == f"created a new key in {other}; only a router with this embedded.data_dir trusts it"
    assert f"--as signs with the key in {other}; is that the embedded.data_dir of this router?" in refused
