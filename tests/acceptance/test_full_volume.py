"""RACES 47 on a running router: something else fills its volume to the last byte."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from router.auth.embedded import EmbeddedKey
from router.backends.embedded import space
from router.clock import SystemClock
from tests.support.service import Router
from tests.support.volumes import fill, small_volume

MIB = 1 << 20
SETTINGS = {"ROUTER_EMBEDDED__RESERVE_BYTES": str(16 * MIB)}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "volume").mkdir()
    with small_volume(tmp_path / "volume", 64 * MIB) as directory:
        yield directory


class User:
    """Somebody with a token."""

    def __init__(self, router: Router, name: str, client: httpx.Client) -> None:
        token = EmbeddedKey.open(router.data_dir).sign(name, SystemClock().now(), 600)
        self.headers = {"Authorization": f"Bearer {token}"}
        self._client, self._url = client, router.url

    def send(self, to: str) -> httpx.Response:
        body = {"recipientId": to, "encryptedData": "AAAA"}
        return self._client.post(f"{self._url}/api/send", json=body, headers=self.headers)

    def ids(self) -> list[str]:
        page = self._client.get(f"{self._url}/api/messages", headers=self.headers)
        return [message["id"] for message in page.json()["messages"]]

    def ack(self, ids: list[str]) -> int:
        body = {"messageIds": ids}
        return self._client.post(f"{self._url}/api/messages/ack", json=body, headers=self.headers).status_code


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_sends_are_refused_and_all_else_goes_on(small: Path) -> None:
    router = Router(small / "data", SETTINGS)
    router.data_dir.mkdir(mode=0o700)
    admin = f"http://127.0.0.1:{router.admin_ports['serve']}"
    with router.running(), httpx.Client(timeout=20) as client:
        alice, bob = User(router, "alice", client), User(router, "bob", client)
        sent = [alice.send("bob").json()["id"] for _ in range(20)]
        eventually((router.data_dir / space.FILE_NAME).exists)
        eventually(lambda: bob.ids() == sent)
        theirs = fill(small)
        eventually(lambda: alice.send("bob").status_code == 503)
        refused = alice.send("bob")
        assert refused.headers["retry-after"]
        assert "volume" not in refused.text, "it says nothing of the machine"
        with connect(router.ws_url, additional_headers=bob.headers) as socket:
            assert socket.recv() == "{}"
        assert bob.ids()[:20] == sent
        assert bob.ack(sent[:15]) == 204
        taken = [json.loads(line)["id"] for line in router.cli("outbox", "--json", "--take").splitlines()]
        assert taken[:5] == sent[15:]
        assert bob.ack(bob.ids()) == 204
        assert bob.ids() == []
        assert client.get(f"{router.url}/readyz").status_code == 200, "acknowledgements need this node"
        assert "sends" in client.get(f"{admin}/readyz").json()["limited"][0]
        assert "router_data_dir_short 1.0" in client.get(f"{admin}/metrics").text
        theirs.unlink()
        eventually(lambda: alice.send("bob").status_code == 202)
        eventually(lambda: "limited" not in client.get(f"{admin}/readyz").json())
