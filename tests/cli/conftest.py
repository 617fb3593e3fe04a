"""The command line as a user runs it: a process of its own, on a data directory of its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from router.config import Config, Embedded
from router.factory import Factory
from router.messages import Connection, Delivery, Lane, Message
from tests.support import forks
from tests.support.servers import Server

NOW = 1_800_000_000_000_000
BOB = "urn:sm:user:bob"
ALICE = "urn:sm:user:alice"
PAYLOAD = "c2VhbGVkLXBheWxvYWQ="


class Router(Protocol):
    """Runs ``router`` with arguments, and with environment variables by name."""

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]: ...


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """This process's environment without what configures a router, or its output."""
    foreign = ("PORT", "PYTHONUNBUFFERED")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("ROUTER_") and name not in foreign
    }
    return {**clean, "ROUTER_EMBEDDED__DATA_DIR": str(data_dir), **more}


def without_rights(*capabilities: str, arguments: list[str]) -> list[str]:
    """The command that runs ``arguments`` without what root may and nobody else; skips where that cannot be."""
    if os.geteuid() != 0:
        return arguments
    if not shutil.which("setpriv"):
        pytest.skip("root may do anything here; setpriv (util-linux) would take the right away")
    return ["setpriv", f"--bounding-set={','.join(f'-{name}' for name in capabilities)}", *arguments]


@pytest.fixture
def project() -> str:
    return f"test-{secrets.token_hex(8)}"


@pytest.fixture
def settings(pubsub: Server, project: str) -> dict[str, str]:
    """Of a router over Pub/Sub, in a project of its own."""
    return {
        "PUBSUB_EMULATOR_HOST": pubsub.address,
        "GOOGLE_CLOUD_PROJECT": project,
        "ROUTER_INGRESS__KIND": "pubsub",
        "ROUTER_INGRESS__IDEMPOTENCY_SECRET": "the same on all nodes",
        "ROUTER_PUSH__KIND": "pubsub",
        "ROUTER_SERVER__API_PORT": "0",
        "ROUTER_SERVER__ADMIN_PORT": "0",
    }


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def router(data_dir: Path) -> Router:
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done = forks.run(arguments, environment(data_dir, **environ))
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


def message(number: int, recipient: str = BOB, *, lane: Lane = Lane.NORMAL, ephemeral: bool = False) -> Message:
    envelope = f'{{"recipientId":"{recipient}","encryptedData":"{PAYLOAD}"}}'.encode()
    return Message(f"id-{number:03}-{recipient[-3:]}", recipient, envelope, lane, ephemeral, NOW)


@pytest.fixture
def inside(data_dir: Path) -> Callable[[Callable[[Factory], Awaitable[None]]], None]:
    """Runs something on the components themselves, to prepare what a command then finds."""

    def run(work: Callable[[Factory], Awaitable[None]]) -> None:
        async def open_and_work() -> None:
            async with Factory(Config(embedded=Embedded(data_dir=data_dir))) as factory:
                await work(factory)

        asyncio.run(open_and_work())

    return run


async def route(factory: Factory, *messages: Message) -> None:
    """Route as the pipeline does, except for the cold writes of users who are offline."""
    online = await factory.online_store()
    await online.route([Delivery(m, receipt, attempt=1) for receipt, m in enumerate(messages)])


async def connect(factory: Factory, user: str) -> Connection:
    connection = Connection(user, f"connection-{user[-3:]}", "node", factory.clock.now())
    await (await factory.online_store()).connect(connection, limit=5)
    return connection
