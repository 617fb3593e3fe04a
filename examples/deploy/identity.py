"""A toy identity service, for trying the router on one machine: it makes one key, and publishes its public half.

``identity.py serve`` answers on IDENTITY_PORT; ``identity.py token USER`` prints a token. Whoever can run the second
is anybody they like, so it is not for production.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY = Path(os.environ.get("IDENTITY_KEY", "identity-key.pem"))
AUDIENCE = "router"
KID = "toy"
TOKEN_SECONDS = 3600


def port() -> int:
    """The one to answer on. Raises ``ValueError``."""
    text = os.environ.get("IDENTITY_PORT", "8090")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"IDENTITY_PORT is {text!r}: set it to a number from 1 to 65535, or leave it out for 8090")
    return int(text)


def url() -> str:
    """Where others find this service, and the issuer of its tokens."""
    return os.environ.get("IDENTITY_URL") or f"http://127.0.0.1:{port()}"


def signing_key() -> rsa.RSAPrivateKey:
    """The one that is kept, made where it is missing. Raises ``OSError`` and ``ValueError``."""
    if not KEY.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        draft = KEY.with_suffix(".draft")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(made.private_bytes(*pem))
        draft.replace(KEY)
    try:
        key = serialization.load_pem_private_key(KEY.read_bytes(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # the first where it is encrypted
        key = None
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    raise ValueError(f"{KEY} is no RSA key in PEM without a password: remove it for a new one, or set IDENTITY_KEY")


def documents() -> dict[str, object]:
    """What is served, by path."""
    public = jwt.algorithms.RSAAlgorithm.to_jwk(signing_key().public_key(), as_dict=True)
    return {
        "/.well-known/oauth-authorization-server": {"issuer": url(), "jwks_uri": f"{url()}/jwks"},
        "/jwks": {"keys": [{**public, "kid": KID, "alg": "RS256", "use": "sig"}]},
    }


def token(user: str) -> str:
    """A token for ``user``."""
    now = int(time.time())
    claims = {"iss": url(), "aud": AUDIENCE, "sub": user, "iat": now, "exp": now + TOKEN_SECONDS}
    return jwt.encode(claims, signing_key(), algorithm="RS256", headers={"kid": KID})


def serve() -> None:
    """Answer until killed."""
    served = documents()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(served.get(self.path, {})).encode()
            self.send_response(200 if self.path in served else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ThreadingHTTPServer(("", port()), Handler).serve_forever()


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["serve"]:
                serve()
            case ["token", user]:
                print(token(user))
            case _:
                print("usage: identity.py serve | token USER", file=sys.stderr)
                return 2
    except (OSError, ValueError) as error:
        print(f"identity.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
