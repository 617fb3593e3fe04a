"""RACES 40: after a soak, payloads are found inside envelopes only, and senders, tokens and keys nowhere."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from router.auth.embedded import EmbeddedKey
from router.backends.embedded import schema
from router.backends.embedded.backend import EmbeddedBackend
from router.checksum import checksum
from router.clock import SystemClock
from router.config import Config, Embedded
from router.factory import Factory
from router.messages import Lane, Message
from tests.contract.stage import envelope
from tests.support.backends import opened
from tests.support.edge import eventually
from tests.support.service import Router, stop
from tests.support.soak import (
    CAP,
    PAYLOADS,
    SENDER,
    SETTINGS,
    Soak,
    ask,
    be_refused,
    misuse_sockets,
    receive,
    sealed,
    send,
)

pytestmark = pytest.mark.anyio
FILE_BYTES = 64 * 1024
"""The size of any file after which a write fails in the phase of errors."""
TALKATIVE = {"ROUTER_SERVER__ACCESS_LOG": "on", "OTEL_TRACES_EXPORTER": "console"}
"""A line for each request, and each span in the log as well."""
SEALED = {
    ("ingress", "envelope"),
    ("hot", "envelope"),
    ("cold", "envelope"),
    ("dead_letter", "body"),
}


def soak_of(router: Router) -> Soak:
    key, clock = EmbeddedKey.open(router.data_dir), SystemClock()
    return Soak(router.url, router.ws_url, lambda user, seconds, handle: key.sign(user, clock.now(), seconds, handle))


async def soak_once(soak: Soak, router: Router) -> bytes:
    """Everything that people do, right and wrong, at one running router; its metrics."""
    async with soak.client() as client:
        async with soak.online():
            await send(soak, client)
            await eventually(lambda: nothing_waits(router))
            await be_refused(soak, client)
            await misuse_sockets(soak)
            await receive(soak, client)
            scan_files(soak, router, {"hot", "cold", "dead_letter"})
        return router.admin("/metrics").content


async def hold(router: Router, name: str, envelopes: list[bytes]) -> None:
    """Leave mail for ``name`` in the ingress, as an earlier version may have: it waits there for a pipeline."""
    clock, user = SystemClock(), f"urn:sm:user:{name}"
    ids = [str(uuid4()) for _ in envelopes]
    held = [
        Message(id_, user, body, Lane.NORMAL, False, clock.now(), False, checksum(id_, user, body))
        for id_, body in zip(ids, envelopes, strict=True)
    ]
    async with Factory(Config(embedded=Embedded(data_dir=router.data_dir)), clock=clock) as factory:
        await (await opened(factory, EmbeddedBackend)).producer().publish(held)


def nothing_waits(router: Router) -> bool:
    """All that was accepted is routed."""
    database = schema.open_reader(router.data_dir / schema.FILE_NAME)
    (waiting,) = database.execute("SELECT count(*) FROM ingress").fetchone()
    database.close()
    return bool(waiting == 0)


@contextmanager
def small_files() -> Iterator[None]:
    """A child inherits that no file of its may grow beyond ``FILE_BYTES``: as on a full disk, its writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def fill_the_disk(soak: Soak) -> None:
    """Send until nothing can be stored any more, and then some."""
    async with soak.client() as client:
        statuses = [
            await ask(
                client, "POST", "/api/send", content=sealed(f"offline-{n}", 300), headers=soak.bearer(f"{SENDER}-e{n}")
            )
            for n in range(60)
        ]
        assert set(statuses) == {202, 503}


def scan_table(soak: Soak, database: sqlite3.Connection, table: str) -> int:
    """Every value of every row; returns how many payloads were found where they belong."""
    found = 0
    cursor = database.execute(f"SELECT * FROM {table}")
    columns = [column[0] for column in cursor.description]
    for row in cursor:
        for column, value in zip(columns, row, strict=True):
            text = value if isinstance(value, bytes) else str(value).encode()
            if (table, column) in SEALED:
                found += PAYLOADS[1] in text
                assert not soak.found(text)
            else:
                soak.scan(text, f"{table}.{column}")
    return found


def scan_files(soak: Soak, router: Router, table_is_used: set[str]) -> None:
    """All tables, and all bytes of all files: free pages and the log keep what no table shows any more."""
    database = sqlite3.connect(router.data_dir / schema.FILE_NAME)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    used = {table for table in tables if scan_table(soak, database, table)}
    assert used >= table_is_used
    database.close()
    for path in router.data_dir.rglob("*"):
        if path.is_file():
            assert not soak.found(path.read_bytes()), path


async def test_secrets_stay_secret(tmp_path: Path) -> None:
    router = Router(tmp_path / "data", SETTINGS | TALKATIVE)
    soak, metrics = soak_of(router), []
    for log_format in ("json", "text"):
        router.environment["ROUTER_SERVER__LOG_FORMAT"] = log_format
        await hold(router, "held", [sealed("held")] * (CAP + 1))
        with router.running() as process:
            metrics.append(await soak_once(soak, router))
            assert await asyncio.to_thread(stop, process) == 0
    # It bears no payload: one that is found in the ingress is in mail that the API itself put there, behind this.
    await hold(router, "offline-0", [envelope("urn:sm:user:offline-0", Lane.NORMAL, ephemeral=False)])
    with small_files():
        process = router.start("serve-api")
    try:
        await fill_the_disk(soak)
        scan_files(soak, router, {"ingress", "cold", "dead_letter"})
    finally:
        process.kill()
        process.wait()
    logs = [router.log(service).encode() for service in ("serve", "serve-api")]
    known = b'{"service": "serve"', b"[info     ] ready", b"unavailable", b'"event": "request"', b'"name": "ingress"'
    soak.scan_words([*logs, *metrics], *known)
