"""A command that only looks says where, and takes no empty directory for an empty queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from router.cli.app import COMMANDS, load
from router.cli.exits import Code
from router.config import Config, Embedded
from router.errors import DataDirError
from router.factory import Factory
from tests.cli.conftest import Router
from tests.support.backends import opened
from tests.support.service import Router as Service

READING = (
    "inspect-queue",
    "inspect-queue bob --json",
    "top",
    "top --json",
    "dead-letters",
    "dead-letters discard --all",
    "dead-letters discard --all --dry-run",
    "dead-letters replay",
    "dead-letters replay --dry-run",
    "outbox",
    "outbox --json --follow",
    "outbox --take",
    "connections",
    "connections bob --json",
    "disconnect bob",
    "migrate --stale",
    "migrate --all --dry-run",
)
"""They read what a router keeps, or take it away."""
JUDGING = ("config check", "config show", "doctor --json", "setup --dry-run")
"""They say what is there and what is not."""
LOOKING = {*READING, *JUDGING, "audit", "purge bob --yes", "token check a.b.c", "backup a.file", "trace m1"}
MAKING = {
    "serve", "serve-api", "serve-ws", "process", "setup", "restore", "token", "send", "listen", "bench", "conformance",
    "import-go",
}  # fmt: skip
"""They make a directory where there is none: a service and ``restore`` a database, ``setup`` all, the others a key to
sign with."""
by_command = pytest.mark.parametrize(
    "command", [line for line in READING if "--follow" not in line and not line.startswith("top")]
)


def _names() -> Iterator[str]:
    """Of all commands."""
    for entry in COMMANDS:
        command = load(entry)
        subcommands = getattr(command, "commands", {})
        if not subcommands or command.invoke_without_command:
            yield entry.name
        yield from (f"{entry.name} {name}" for name in subcommands)


def test_each_command_is_known_as_one_that_looks_or_one_that_makes() -> None:
    """A new one belongs into ``LOOKING``, where the next test holds it, unless it has to make something."""
    for name in _names():
        assert name in MAKING or any(f"{line} ".startswith(f"{name} ") for line in LOOKING), name


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
@pytest.mark.parametrize("line", sorted(LOOKING))
def test_what_only_looks_makes_nothing(router: Router, data_dir: Path, line: str, there: bool) -> None:
    if there:
        data_dir.mkdir()
    ended = router(*line.split())
    assert data_dir.exists() == there
    assert not there or not any(data_dir.iterdir())
    if line in JUDGING:
        assert ended.returncode in (Code.OK, Code.WARNINGS)
        return
    assert (ended.returncode, ended.stdout) == (Code.CONFIG, "")
    assert ended.stderr.startswith("error: there is no ")
    assert str(data_dir) in ended.stderr
    assert "set embedded.data_dir to the data directory of your router, or run this as its user" in ended.stderr


def test_a_store_that_a_command_needs_besides_is_not_made_either(data_dir: Path) -> None:
    """As the outbox for ``migrate``, where the mail is elsewhere."""

    async def need() -> None:
        async with Factory(Config(embedded=Embedded(data_dir=data_dir)), make=False) as factory:
            for component in (factory.push_notifier, factory.ingress_producer, factory.poke_bus, factory.cold_queue):
                with pytest.raises(DataDirError, match="so no router has run there"):
                    await component()

    asyncio.run(need())
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
