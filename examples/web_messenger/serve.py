"""A messenger in two browser windows: python examples/web_messenger/serve.py → two links, one for each person.

It starts a router, and beside it the server that every app has of its own: it serves the page, knows its people by
the secret in their link, gives them tokens for the router, and hands round their cards (public keys). The page uses
the client package, which `make demo` compiles first.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock

HERE = Path(__file__).parent
PAGE = HERE / "page"
CLIENT = HERE.parents[1] / "clients" / "typescript" / "dist"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PEOPLE = ("alice", "bob")
TOKEN_SECONDS = 900
START_SECONDS = 60.0
CARD_BYTES = 64


class Demo:
    """A folder with the router's data, the cards, and what the links need; and the router, which may be killed."""

    def __init__(self, folder: Path, page_port: int) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.cards = folder / "keys"
        self.cards.mkdir(parents=True, exist_ok=True)
        self.origin = f"http://127.0.0.1:{page_port}"
        port = free_port()
        self.router = f"http://127.0.0.1:{port}"
        self.config = folder / "router.toml"
        self.config.write_text(
            f"[embedded]\ndata_dir = {json.dumps(str(self.data_dir))}\n"
            f"[server]\napi_port = {port}\nws_port = {free_port()}\nadmin_port = {free_port()}\n"
            f"allowed_origins = [{json.dumps(self.origin)}]\n"
        )
        self.secrets = self._secrets()
        self.key = EmbeddedKey.open(self.data_dir)
        self.process: subprocess.Popen[bytes] | None = None

    def _secrets(self) -> dict[str, str]:
        """Person → what makes somebody them: kept, so that the links stay."""
        path = self.folder / "links.json"
        if not path.exists():
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({person: secrets.token_hex(16) for person in PEOPLE}, file)
        kept: dict[str, str] = json.loads(path.read_text())
        return kept

    @property
    def links(self) -> dict[str, str]:
        """The secret is in the fragment, which a browser sends to nobody."""
        return {person: f"{self.origin}/#{person}.{secret}" for person, secret in self.secrets.items()}

    def person(self, authorization: str) -> str | None:
        """Whose secret this is."""
        person, _, secret = authorization.removeprefix("Bearer ").partition(".")
        return (
            person if secrets.compare_digest(self.secrets.get(person, "").encode(), secret.encode() or b"-") else None
        )

    def token(self, person: str) -> str:
        return self.key.sign(person, SystemClock().now(), TOKEN_SECONDS)

    def listed_cards(self) -> dict[str, str]:
        return {path.stem: base64.b64encode(path.read_bytes()).decode() for path in sorted(self.cards.glob("*.card"))}

    def keep_card(self, person: str, card: bytes) -> bool:
        """Whether it is the card of this person: the first one is, and stays it."""
        path = self.cards / f"{person}.card"
        if not path.exists():
            path.write_bytes(card)
        return path.read_bytes() == card

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Return when the router is ready."""
        environment = {**os.environ, "ROUTER_CONFIG": str(self.config)}
        with (self.folder / "router.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.alive:
            try:
                if httpx.get(f"{self.router}/readyz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        sys.exit(f"serve.py: the router did not start; see {self.folder / 'router.log'}")

    def kill(self) -> None:
        """As by kill -9: the router gets no chance to tidy up."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


class Handler(BaseHTTPRequestHandler):
    """The page, and the three things that this app's own server does."""

    demo: Demo

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/cards":
            self.answer(HTTPStatus.OK, self.demo.listed_cards())
        elif found := re.fullmatch(r"/(client/)?([a-z]+\.(?:js|css|svg))?", path):
            self.file((CLIENT if found[1] else PAGE) / (found[2] or "index.html"))
        else:
            self.answer(HTTPStatus.NOT_FOUND, {})

    def do_POST(self) -> None:
        person = self.person()
        if self.path == "/session" and person:
            self.answer(HTTPStatus.OK, {"router": self.demo.router, "token": self.demo.token(person)})
        else:
            self.answer(HTTPStatus.UNAUTHORIZED, {})

    def do_PUT(self) -> None:
        person = self.person()
        length = self.headers.get("Content-Length", "")
        card = base64.b64decode(self.rfile.read(int(length))) if length.isdigit() and int(length) < 200 else b""
        if self.path != "/card" or not person or len(card) != CARD_BYTES:
            self.answer(HTTPStatus.UNAUTHORIZED, {})
        else:
            self.answer(HTTPStatus.OK if self.demo.keep_card(person, card) else HTTPStatus.CONFLICT, {})

    def person(self) -> str | None:
        return self.demo.person(self.headers.get("Authorization", ""))

    def answer(self, status: HTTPStatus, body: dict[str, str]) -> None:
        self.send(status, "application/json", json.dumps(body).encode())

    def file(self, path: Path) -> None:
        if path.is_file():
            self.send(HTTPStatus.OK, TYPES[path.suffix], path.read_bytes())
        else:
            self.answer(HTTPStatus.NOT_FOUND, {})

    def send(self, status: HTTPStatus, media_type: str, body: bytes) -> None:
        router = f"{self.demo.router} {self.demo.router.replace('http', 'ws', 1)}"
        policy = f"default-src 'self'; connect-src 'self' {router}; base-uri 'none'; frame-ancestors 'none'"
        self.send_response(status)
        headers = {
            "Content-Type": f"{media_type}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Nothing: it would say who looks when."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(demo: Demo, server: ThreadingHTTPServer) -> Iterator[None]:
    """The router runs and the page is there."""
    Handler.demo = demo
    demo.start()
    try:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
    finally:
        server.shutdown()
        demo.stop()


def obey(demo: Demo) -> None:
    """Each line that is typed kills the router, or starts it again; where nobody types, nothing happens to it."""
    for _ in sys.stdin:
        if demo.alive:
            demo.kill()
            print("The router is dead. Write something, and press Enter again to start it.", flush=True)
        else:
            demo.start()
            print("The router runs. Press Enter to kill it.", flush=True)
    while True:
        signal.pause()


def introduction(demo: Demo) -> str:
    links = "\n".join(f"  {person:<6} {link}" for person, link in demo.links.items())
    sealed = HERE.parent / "sealed_sender"
    return f"""\
Open these in two windows, side by side:

{links}

The command line writes to them as well, and they to it. In another terminal, as carol:

  cd {demo.folder}; export ROUTER_CONFIG=$PWD/router.toml
  {sys.executable} {sealed}/open.py carol
  {sys.executable} {sealed}/seal.py carol alice "hello" | {sys.executable} -m router send --as carol -
  {sys.executable} -m router listen --as carol --dir inbox --once
  {sys.executable} {sealed}/open.py carol inbox/*.json

Press Enter to kill the router while you write, and again to start it; Ctrl-C ends everything.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="A messenger in two browser windows.")
    parser.add_argument("--port", type=int, default=8090, help="of the page (8090)")
    parser.add_argument("--data", type=Path, help="keep everything here, for the next time")
    parser.add_argument("--open", action="store_true", help="open both links in the browser")
    arguments = parser.parse_args()
    if not (CLIENT / "index.js").exists():
        sys.exit(f"serve.py: {CLIENT} is missing; run: make demo")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    except OSError as error:
        sys.exit(f"serve.py: port {arguments.port}: {error.strerror}; choose another with --port")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="web-messenger-") as temporary:
        demo = Demo((arguments.data or Path(temporary)).resolve(), server.server_port)
        try:
            with served(demo, server):
                print(introduction(demo), flush=True)
                if arguments.open:
                    for link in demo.links.values():
                        webbrowser.open_new(link)
                obey(demo)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
