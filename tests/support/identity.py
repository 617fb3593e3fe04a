"""An identity service on loopback: a key of its own, discovery, a JWKS, and tokens for whom a test likes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import msgspec

from router.auth.embedded import EmbeddedKey
from router.clock import SystemClock

TOKEN_SECONDS = 3600


class Identity:
    """Signs with RS256. ``documents`` is what it serves, by path; ``date`` is its clock, if it is not the real one."""

    def __init__(self, folder: Path) -> None:
        self.key = EmbeddedKey.open(folder)
        self.documents: dict[str, Mapping[str, object]] = {}
        self.statuses: dict[str, int] = {}
        """What is answered instead of 200, by path."""
        self.date: str | None = None
        self.url = ""

    def publish(self, url: str) -> None:
        """Serve the key's public half at ``url``."""
        self.url = url
        self.documents = {
            "/.well-known/oauth-authorization-server": {"issuer": url, "jwks_uri": f"{url}/jwks"},
            "/jwks": {"keys": [self.published(self.key)]},
        }

    @staticmethod
    def published(key: EmbeddedKey, **other: object) -> dict[str, object]:
        """The public half of ``key`` as a JWK, with what is ``other`` about it."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key._key.public_key(), as_dict=True)
        return {**public, "kid": key.kid, "alg": "RS256", "use": "sig", **other}

    def token(self, user: str) -> str:
        """A token that is good for an hour."""
        return self.sign(user, TOKEN_SECONDS)

    def sign(self, user: str, seconds: float, handle: str | None = None) -> str:
        """A token that is good for so long."""
        return self.key.sign(user, SystemClock().now(), seconds, handle)


@contextmanager
def identity_service(folder: Path) -> Iterator[Identity]:
    """An ``Identity`` that answers on a free port of 127.0.0.1, on a thread of its own."""
    identity = Identity(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = identity.documents.get(self.path)
            body = b"" if document is None else msgspec.json.encode(document)
            with contextlib.suppress(ConnectionError):  # who asked may be killed, or frozen and have given up
                self.send_response(404 if document is None else identity.statuses.get(self.path, 200))
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return identity.date or super().date_time_string(timestamp)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        identity.publish(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield identity
        finally:
            server.shutdown()
            thread.join()
