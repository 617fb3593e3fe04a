"""The embedded identity: a signing key that the router makes in its data directory, for use without a server."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from router.clock import MICROSECONDS
from router.errors import DataDirError

ISSUER = "sealed-router-embedded"
ALGORITHM = "RS256"
KEY_BITS = 2048


class EmbeddedKey:
    """An RSA key in ``token-key.pem``, which signs and verifies."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        public = key.public_key()
        encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.kid = hashlib.sha256(encoded).hexdigest()[:16]
        document = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        self._public = jwt.PyJWK({**document, "kid": self.kid, "alg": ALGORITHM})

    @classmethod
    def open(cls, data_dir: Path) -> EmbeddedKey:
        """The key of ``data_dir``, made there (0600) if it is missing; raises ``DataDirError``."""
        pem = kept_secret(data_dir / "token-key.pem", _new_pem)
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise DataDirError(f"{data_dir / 'token-key.pem'} holds no RSA key; remove it to get a new one")
        return cls(key)

    def sign(self, user: str, now: int, ttl_seconds: float, handle: str | None = None) -> str:
        """A token for ``user``, issued at ``now`` (µs since 1970)."""
        issued = now // MICROSECONDS
        claims: dict[str, str | int] = {"iss": ISSUER, "sub": user, "iat": issued, "exp": issued + int(ttl_seconds)}
        if handle is not None:
            claims["handle"] = handle
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self.kid})

    async def candidates(self, kid: str | None) -> Sequence[jwt.PyJWK]:
        return [self._public] if kid in (None, self.kid) else []

    async def probe(self) -> None:
        return


def idempotency_secret(data_dir: Path) -> bytes:
    """The secret behind ids that derive from an Idempotency-Key: ``idempotency-key``, made if it is missing."""
    return kept_secret(data_dir / "idempotency-key", lambda: secrets.token_bytes(32))


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of ``path``; where it is missing, what ``make`` gives is kept there (0600), by one process only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _publish(path, make())
        return path.read_bytes()
    except OSError as error:
        raise DataDirError(f"cannot keep a secret in {path}: {error.strerror}") from error


def _publish(path: Path, content: bytes) -> None:
    """Make ``path`` appear at once and whole; where another process was faster, its content stays."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _new_pem() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
