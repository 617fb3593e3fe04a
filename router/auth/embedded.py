"""The embedded identity: a signing key that the router makes in its data directory, for use without a server."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from router.auth.documents import mark
from router.clock import MICROSECONDS
from router.data_dir import (
    IDEMPOTENCY_KEY,
    SIGNING_KEY,
    claim,
    key_file,
    locked,
    make_data_dir,
    sync_directory,
    unusable,
)
from router.errors import DataDirError

ISSUER = "sealed-router-embedded"
ALGORITHM = "RS256"
KEY_BITS = 2048
SECRET_BYTES = 32


class EmbeddedKey:
    """``KeySource`` over the RSA key in ``SIGNING_KEY``, which signs and verifies.

    The file is read once: a key that takes its place is the key of processes that start after that.
    """

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        public = key.public_key()
        encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.kid = hashlib.sha256(encoded).hexdigest()[:16]
        document = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        self._public = jwt.PyJWK({**document, "kid": self.kid}, ALGORITHM)
        self._mark = mark(self._public)

    @classmethod
    def open(cls, data_dir: Path) -> EmbeddedKey:
        """The key of ``data_dir``, made there (0600) if it is missing; raises ``DataDirError``."""
        make_data_dir(data_dir)
        path = key_file(data_dir, SIGNING_KEY)
        pem = kept_secret(path, _new_pem)
        try:
            # The check that is skipped takes longer than the rest of the start; it is for keys of strangers.
            key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _broken(path, "something that is not a private key") from error
        if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
            raise _broken(path, f"something that is not an RSA key of {KEY_BITS} bits")
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

    async def look_again(self) -> bool:
        return False

    def trusts(self, key: bytes) -> bool:
        return key == self._mark

    @property
    def age_seconds(self) -> float:
        return 0.0

    async def probe(self) -> None:
        return


def check_made(data_dir: Path) -> None:
    """Raise ``DataDirError`` unless ``data_dir`` has a signing key; for what only looks and must not make one."""
    path = key_file(data_dir, SIGNING_KEY)
    try:
        path.stat()
    except FileNotFoundError as error:
        raise DataDirError(
            f"there is no {path}, so no router has signed a token there: "
            "set embedded.data_dir to the data directory of your router, or run this as its user"
        ) from error
    except OSError as error:
        raise unusable(data_dir, error) from error


def idempotency_secret(data_dir: Path) -> bytes:
    """The secret behind ids that derive from an Idempotency-Key: 32 bytes in ``idempotency-key``.

    Made there (0600) if it is missing; raises ``DataDirError``.
    """
    make_data_dir(data_dir)
    path = key_file(data_dir, IDEMPOTENCY_KEY)
    secret = kept_secret(path, lambda: secrets.token_bytes(SECRET_BYTES))
    if len(secret) != SECRET_BYTES:
        raise _broken(path, f"something that is not {SECRET_BYTES} bytes long")
    return secret


def kept_secret(path: Path, make: Callable[[], bytes]) -> bytes:
    """The bytes of ``path``; where it is missing, what ``make`` gives is kept there (0600), by one process only.

    Raises ``DataDirError``.
    """
    make_data_dir(path.parent)
    try:
        if not path.exists():
            with locked(path.parent / "keys.lock"):
                if not path.exists():  # another process may have been faster
                    _publish(path, make())
        claim(path)
        return path.read_bytes()
    except OSError as error:
        raise DataDirError(
            f"cannot keep {path}: {error.strerror}; make it readable and its directory writable, or name another "
            "with embedded.data_dir"
        ) from error


def _publish(path: Path, content: bytes) -> None:
    """Make ``path`` appear at once and whole. A rename, since not every file system has hard links."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _new_pem() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _broken(path: Path, holds: str) -> DataDirError:
    return DataDirError(f"{path} holds {holds}; remove it, and the next start creates a new one")
