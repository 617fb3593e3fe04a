"""What all tests share."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.backends.embedded.backend import EmbeddedBackend
from tests.support import certificates
from tests.support.redis_servers import Cluster, Watched, cluster, watched
from tests.support.servers import (
    REDIS_VARIABLE,
    MissingServer,
    Server,
    end_when_told,
    firestore_emulator,
    oldest_redis_program,
    pubsub_emulator,
    redis_program,
    redis_server,
    running,
)

LONGEST = (
    "conformance/test_flaws.py",
    "clients/test_tab_kills.py",
    "contract/test_firestore.py",
    "contract/test_redis.py",
    "acceptance/test_faults.py",
    "sim/test_sim.py",
    "acceptance/test_serve.py",
    "acceptance/test_outages.py",
    "sim/test_refusals.py",
    "worlds/test_teeth.py",
)
"""Files that take longest, by what they work and wait: one process runs each, so they begin first."""

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 1 << 30
"""There is room in memory if so much is free; tests use a small part of it."""
IN_MEMORY = {"contract", "core", "firestore", "pubsub", "redis", "web", "worlds"}
"""Folders of tests that ask what is kept, and none what a disk keeps."""


@contextmanager
def needed_servers() -> Iterator[None]:
    """A missing server skips the test and says how to get it; in CI it fails the test."""
    try:
        yield
    except MissingServer as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    """For servers that are fixtures."""
    with needed_servers():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """For servers that tests start themselves."""
    with needed_servers():
        return (yield)


def pytest_configure() -> None:
    end_when_told()


@pytest.fixture(scope="session", autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What goes to the temporary directory is removed: sockets of data directories, too, that are too deep for them."""
    tmp_path_factory.getbasetemp()  # stays where it was: it is kept for a look
    with tempfile.TemporaryDirectory(prefix="rt-") as directory, pytest.MonkeyPatch.context() as patch:
        Path(directory).chmod(0o1777)  # for tests that run as another user
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", directory)
        yield


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Stores sync each commit, for which most tests would do little but wait: some have no disk below them."""
    in_memory = request.path.parent.name in IN_MEMORY and MEMORY.is_dir()
    if not in_memory or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="rt-", dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture(scope="session", autouse=True)
def cheap_starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests start lives for seconds. Each HTTP client reads the certificate authorities, 25 ms of work for all of
    the world's: here one is known, which has signed nothing. And Java is to compile quickly: the emulators work half
    as much as with its best."""
    _, known, _ = certificates.make(tmp_path_factory.mktemp("certificates"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(known))
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        yield


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the router does."""
    return "asyncio"


@pytest.fixture(scope="session")
async def one_loop(anyio_backend: str) -> AsyncIterator[asyncio.AbstractEventLoop]:
    """One event loop for all tests that call by gRPC, which has one queue for all loops: it would tell a closed one of
    late calls."""
    del anyio_backend
    yield asyncio.get_running_loop()  # noqa: PT022 - a fixture that waits for its end is what keeps the loop open


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: of several processes none begins with one when the others are done."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "both_redis_releases" in metafunc.fixturenames:
        metafunc.parametrize("redis_release", ["newest", "oldest"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def redis_release(request: pytest.FixtureRequest) -> Path:
    """The redis-server of a test: the newest, unless it asks for both."""
    return oldest_redis_program() if getattr(request, "param", None) == "oldest" else redis_program()


@pytest.fixture
def both_redis_releases(redis_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For ``usefixtures``: the test runs with the newest redis-server and with the oldest, in whatever it starts."""
    monkeypatch.setenv(REDIS_VARIABLE, str(redis_release))


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory, redis_release: Path) -> Iterator[Server]:
    """One Redis for all tests; each takes a database or a key prefix of its own."""
    with running(redis_server(tmp_path_factory.mktemp("redis"), program=redis_release)) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory, redis_release: Path) -> Iterator[Cluster]:
    """One cluster of three for all tests; each takes a key prefix of its own."""
    with cluster(tmp_path_factory.mktemp("redis-cluster"), program=redis_release) as made:
        yield made


@pytest.fixture
def redis_sentinel(tmp_path: Path) -> Iterator[Watched]:
    """A master, its replica and three sentinels of one test's own, since it lets the master die."""
    with watched(tmp_path / "redis-sentinel") as made:
        yield made


@pytest.fixture(scope="session")
def firestore(tmp_path_factory: pytest.TempPathFactory, one_loop: asyncio.AbstractEventLoop) -> Iterator[Server]:
    """One Firestore emulator for all tests; each takes a project of its own."""
    del one_loop
    with running(firestore_emulator(tmp_path_factory.mktemp("firestore"))) as server:
        yield server


@pytest.fixture(scope="session")
def pubsub(tmp_path_factory: pytest.TempPathFactory, one_loop: asyncio.AbstractEventLoop) -> Iterator[Server]:
    """One Pub/Sub emulator for all tests; each takes a project of its own."""
    del one_loop
    with running(pubsub_emulator(tmp_path_factory.mktemp("pubsub"))) as server:
        yield server


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the embedded ingress accepts waits for a pipeline, as where push commands go elsewhere."""
    monkeypatch.setattr(EmbeddedBackend, "direct", property(lambda _: False))
