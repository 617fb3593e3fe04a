"""``router audit``: exact on one machine, by the metrics of all processes elsewhere."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from router.books import Books
from router.cli.counted import Counted, Counters
from router.cli.exits import Code
from router.config import load_with_origins
from router.factory import Factory
from router.messages import Message
from tests.cli.conftest import BOB, PAYLOAD, message
from tests.cli.conftest import Router as Command
from tests.cli.test_queues import Inside
from tests.support.servers import free_port, redis_server, running
from tests.support.service import Router


async def publish(factory: Factory, *messages: Message) -> None:
    await (await factory.ingress_producer()).publish(messages)


def test_balanced_books_are_shown_and_lost_mail_is_missing(router: Command, inside: Inside, data_dir: Path) -> None:
    async def prepare(factory: Factory) -> None:
        await publish(factory, message(1), message(2), message(3))
        await (await factory.message_queue()).acknowledge(BOB, [message(1).id])

    inside(prepare)
    done = router("audit", "--json")
    view = json.loads(done.stdout)
    assert done.returncode == Code.OK
    assert (view["seconds"], view["accepted"], view["acknowledged"], view["queued"]) == (None, 3, 1, 2)
    assert (view["missing"], view["unbalanced"], view["notes"]) == (0, [], [])
    assert "balance\n" in router("audit").stdout
    with closing(sqlite3.connect(data_dir / "router.db")) as db, db:
        db.execute("DELETE FROM cold WHERE id = ?", (message(2).id,))
    done = router("audit", "--json")
    view = json.loads(done.stdout)
    assert done.returncode == Code.BROKEN_PROMISE
    assert (view["missing"], view["unbalanced"]) == (1, [{"user": BOB, "kept": 2, "held": 1}])
    shown = router("audit")
    assert "DO NOT BALANCE" in shown.stdout
    assert BOB in shown.stdout
    assert PAYLOAD not in done.stdout + shown.stdout


def test_a_folder_without_a_database_is_refused(router: Command) -> None:
    assert router("audit").returncode == Code.CONFIG


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Router]:
    """A router whose mail passes two stores, with a Redis as the online store."""
    with running(redis_server(tmp_path / "redis")) as redis:
        settings = {"ROUTER_ONLINE__KIND": "redis", "ROUTER_ONLINE__URL": f"redis://{redis.address}"}
        yield Router(tmp_path / "data", settings)


def test_elsewhere_metrics_and_queues_are_compared(apart: Router) -> None:
    """Bob is offline; of three messages he acknowledges one."""
    admin = f"http://127.0.0.1:{apart.admin_ports['serve']}"

    async def read() -> Counted:
        config = load_with_origins(None, apart.environment).config
        async with Factory(config) as factory:
            return await Counters(await factory.online_store(), await factory.cold_queue(), [admin]).read()

    with apart.running():
        before = asyncio.run(read())
        for _ in range(3):
            body = {"recipientId": BOB, "encryptedData": PAYLOAD}
            headers = {"authorization": f"Bearer {apart.token('alice')}"}
            assert httpx.post(f"{apart.url}/api/send", json=body, headers=headers).status_code == 202
        own = {"authorization": f"Bearer {apart.token('bob')}"}
        while len(page := httpx.get(f"{apart.url}/api/messages", headers=own).json()["messages"]) < 3:
            pass
        ack = {"messageIds": [page[0]["id"]]}
        assert httpx.post(f"{apart.url}/api/messages/ack", json=ack, headers=own).status_code == 204
        after = asyncio.run(read())
        assert after.since(before) == Books(accepted=3, acknowledged=1, queued=2, expired=0, dropped=0, dead=0)
        assert not after.restarted(before)
        done = apart.command("audit", "--json", "--for", "0", "--admin", admin)
        view = json.loads(done.stdout)
        assert (done.returncode, view["seconds"], view["accepted"], view["missing"]) == (Code.OK, 0, 0, 0)
        silent = apart.command("audit", "--admin", f"http://127.0.0.1:{free_port()}")
        assert silent.returncode == Code.UNAVAILABLE
        assert b"--admin" in silent.stderr


def counted(missing: int) -> Counted:
    """Ten messages came, and this many less are in the queues."""
    return Counted({("router_messages_routed_total", "cold"): 10.0}, {}, 10 - missing, 0)


def test_what_is_in_no_queue_and_no_count_is_missing() -> None:
    nothing = Counted({("router_messages_routed_total", "cold"): 0.0}, {}, 0, 0)
    assert counted(0).since(nothing).missing == 0
    assert counted(2).since(nothing).missing == 2
