"""What docs/behind-a-proxy.md says, with the real proxies: its configurations are run as they stand there."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.servers import Server, free_port, nginx, proxy_program, running
from tests.support.service import Router

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "behind-a-proxy.md"
EXAMPLES = ROOT / "examples" / "deploy" / "proxies"
LARGE = {"recipientId": "bob", "encryptedData": "A" * 345_000}
STOCK = "client_max_body_size 2m; server { listen 127.0.0.1:443; location / { proxy_pass http://127.0.0.1:8082; } }"
"""HTTP/1.0 to the router, as nginx has it where nobody says otherwise."""


def written(language: str) -> str:
    """The block of the page."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def placed(text: str, router: Router) -> str:
    """The text for this router; TLS is the proxy's own affair and needs a certificate."""
    text = text.replace("127.0.0.1:8082", f"127.0.0.1:{router.api_port}")
    return text.replace("127.0.0.1:8083", f"127.0.0.1:{router.ws_port}")


def two_nodes(name: str) -> str:
    """The example for two nodes, of which one is gone: nobody listens there."""
    text = (EXAMPLES / name).read_text()
    gone = {port: free_port() for port in ("8082", "8083")}
    text = re.sub(r"10\.0\.0\.11:(808\d)", lambda found: f"127.0.0.1:{gone[found[1]]}", text)
    assert "10.0.0.12:8082" in text
    return text.replace("10.0.0.12:", "127.0.0.1:").replace("router.example.com {", "router.example {")


def with_nginx(router: Router, folder: Path, text: str) -> Server:
    port = free_port()
    text = re.sub(r"listen 443 ssl;|listen 127.0.0.1:443;", f"listen 127.0.0.1:{port};", placed(text, router))
    return nginx(folder, re.sub(r"ssl_certificate.*;", "", text), port)


def with_haproxy(router: Router, folder: Path) -> Server:
    port, file = free_port(), folder / "haproxy.cfg"
    folder.mkdir()
    text = placed(written("haproxy"), router)
    file.write_text(re.sub(r"bind :443 ssl crt \S+", f"bind 127.0.0.1:{port}", text))
    return Server([str(proxy_program("haproxy")), "-db", "-f", str(file)], port, folder)


def with_caddy(router: Router, folder: Path, text: str) -> Server:
    port, file = free_port(), folder / "Caddyfile"
    folder.mkdir()
    text = placed(text, router).replace("router.example {", f"http://127.0.0.1:{port} {{", 1)
    file.write_text(f"{{\n admin off\n auto_https off\n}}\n{text}")
    return Server(
        [str(proxy_program("caddy")), "run", "--config", str(file)],
        port,
        folder,
        {"HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    )


PROXIES: dict[str, Callable[[Router, Path], Server]] = {
    "nginx": lambda router, folder: with_nginx(router, folder, written("nginx")),
    "haproxy": with_haproxy,
    "caddy": lambda router, folder: with_caddy(router, folder, written("caddy")),
    "nginx-two-nodes": lambda router, folder: with_nginx(router, folder, two_nodes("nginx.conf")),
    "caddy-two-nodes": lambda router, folder: with_caddy(router, folder, two_nodes("Caddyfile")),
}


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    started = Router(tmp_path_factory.mktemp("router") / "data")
    with started.running():
        yield started


@pytest.mark.parametrize("name", PROXIES)
async def test_the_settings_of_the_page(router: Router, tmp_path: Path, name: str) -> None:
    alice, bob = router.token("alice"), router.token("bob")
    with running(PROXIES[name](router, tmp_path / name)) as proxy:
        url = f"http://{proxy.address}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            headers = {"authorization": f"Bearer {bob}", "origin": url}
            # A page of the router's own host, which is nowhere listed: Host is passed on.
            async with connect(f"ws://{proxy.address}/connect", additional_headers=headers, proxy=None) as pokes:
                sent = await client.post("/api/send", json=LARGE, headers={"authorization": f"Bearer {alice}"})
                assert sent.status_code == 202
                async with asyncio.timeout(20):
                    assert await pokes.recv() == "{}"
            fetched = await client.get("/api/messages", headers=headers)
            assert [queued["id"] for queued in fetched.json()["messages"]] == [sent.json()["id"]]
            done = await client.post("/api/messages/ack", json={"messageIds": [sent.json()["id"]]}, headers=headers)
            assert done.status_code == 204
            for private in ("/metrics", "/readyz", "/"):
                assert (await client.get(private)).status_code == 404
            for _ in range(20):
                assert (await client.post("/api/send", json=LARGE)).status_code == 401


@pytest.mark.parametrize("text", [STOCK, written("nginx")], ids=["stock", "page"])
def test_a_refusal_arrives_through_nginx(router: Router, tmp_path: Path, text: str) -> None:
    """nginx made 502 of a part of them: the router's reset overtook its answer."""
    token = router.token("alice")
    with running(with_nginx(router, tmp_path / "nginx", text)) as proxy:
        with httpx.Client(base_url=f"http://{proxy.address}", trust_env=False, timeout=30) as client:
            found = {
                client.post("/api/send", content=body, headers={"authorization": f"Bearer {shown}"}).status_code
                for _ in range(30)
                for shown, body in (("expired", b"A" * 345_000), (token, b"\0" * 900_000))
            }
        assert "reset by peer" not in (tmp_path / "nginx" / "error.log").read_text()
    assert found == {401, 413}


def test_a_client_that_closes_gets_its_refusal(router: Router) -> None:
    """Without a proxy in between."""
    head = b"POST /api/send HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 900000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", router.api_port), timeout=20) as client:
            client.sendall(head + b"A" * 900_000)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 401 ")
