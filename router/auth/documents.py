"""Reading what an identity service publishes: documents as they come, and the keys in them that can be used."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from router.logs import logger

LOG = logger(__name__)
MAX_BYTES = 256 * 1024
"""Of a document, as it comes and unpacked."""
MAX_KEYS = 64
"""Of one key set; a token may have to be tried with each of them."""
PUBLIC_KEY_TYPES = ("RSA", "EC", "OKP")
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3

_FOREIGN = (
    *(jwt.PyJWTError, UnsupportedAlgorithm, NotImplementedError),
    *(AttributeError, LookupError, OverflowError, TypeError, ValueError),
)
"""What the libraries raise about a key that they cannot read: each member may hold anything."""
_GZIP = b"\x1f\x8b"
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def read(body: bytes, encoding: str) -> dict[str, Any]:
    """The JSON object in ``body``, which came with this Content-Encoding; raises ``ValueError``.

    The router asks for nothing compressed, but some servers send it anyway: with the header, or without it, from a
    file that was stored compressed.
    """
    document = json.loads(_unpacked(body, encoding.strip().lower()))
    if not isinstance(document, dict):
        raise ValueError("the document is not a JSON object")  # noqa: TRY004 - wrong content, not a wrong call
    return document


def usable(document: dict[str, Any], algorithms: Sequence[str]) -> list[jwt.PyJWK]:
    """The keys that verify one of ``algorithms``, each once per algorithm; raises ``ValueError`` for no key set.

    A key set without such a key is an answer like any other: all keys are withdrawn.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("the document is not a key set: it has no list of keys")  # noqa: TRY004 - wrong content
    if len(listed) > MAX_KEYS:
        LOG.warning("the identity service has more keys than the router reads", keys=len(listed), read=MAX_KEYS)
    entries = [entry for entry in listed[:MAX_KEYS] if isinstance(entry, dict)]
    return [key for entry in entries for key in _verifying(entry, algorithms)]


def mark(key: jwt.PyJWK) -> bytes:
    """What tells this key from every other one: its name, its algorithm and what it is made of."""
    public = key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(repr((key.key_id, key.algorithm_name)).encode() + public).digest()


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        encoding = "gzip" if body.startswith(_GZIP) else ""
    if not encoding:
        return body
    if encoding not in _WINDOWS:
        raise ValueError(f"the document is compressed ({encoding[:20]!r}), which the router did not ask for")
    try:
        return _inflated(body, _WINDOWS[encoding])
    except zlib.error:
        if encoding != "deflate":
            raise ValueError("the document is not gzip, although its server says so") from None
    try:
        return _inflated(body, -zlib.MAX_WBITS)  # without the frame that the name stands for, as many send it
    except zlib.error:
        raise ValueError("the document is not deflate, although its server says so") from None


def _inflated(body: bytes, window: int) -> bytes:
    unpacking = zlib.decompressobj(window)
    whole = unpacking.decompress(body, MAX_BYTES + 1)
    if len(whole) > MAX_BYTES:
        raise ValueError(f"the document is larger than {MAX_BYTES} bytes")
    if not unpacking.eof:
        raise ValueError("the compressed document is cut short")
    return whole


def _verifying(entry: dict[str, Any], algorithms: Sequence[str]) -> Iterator[jwt.PyJWK]:
    # Null is absent.
    entry = {name: value for name, value in entry.items() if value is not None}
    # A secret in a public document, shared or private, proves nothing (RFC 8725, section 3.1).
    if entry.get("kty") not in PUBLIC_KEY_TYPES or "d" in entry or entry.get("use", "sig") != "sig":
        return
    for algorithm in algorithms:
        # A key that names no algorithm serves all that fit its type (RFC 7517, section 4.4).
        if entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
            key.Algorithm.prepare_key(key.key)
        except _FOREIGN:
            # A key of a kind that is not known here is for somebody else.
            continue
        if not isinstance(key.key, RSAPublicKey) or key.key.key_size >= MIN_RSA_BITS:
            yield key
