"""Documents of identity services as they come: compressed unasked, with members that are null or strange."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from router.auth.documents import MAX_BYTES, read, usable
from router.auth.embedded import EmbeddedKey

DOCUMENT: dict[str, Any] = {"keys": [{"kty": "RSA"}]}
PLAIN = json.dumps(DOCUMENT).encode()


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A JWK with what it needs, and nothing else."""
    pem = EmbeddedKey.open(tmp_path_factory.mktemp("key"))
    document: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(pem._key.public_key(), as_dict=True)
    return {name: document[name] for name in ("kty", "n", "e")}


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("GZip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("", gzip.compress),
    ],
)
def test_a_document_is_read_however_it_is_packed(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert read(pack(PLAIN), encoding) == DOCUMENT
    assert read(pack(b"\xef\xbb\xbf" + PLAIN), encoding) == DOCUMENT, "with a byte order mark"


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (PLAIN, "br", "compressed"),
        (PLAIN, "gzip, gzip", "compressed"),
        (PLAIN, "gzip", "not gzip"),
        (PLAIN, "deflate", "not deflate"),
        (gzip.compress(PLAIN, mtime=0)[:-9], "gzip", "cut short"),
        (gzip.compress(b" " * (MAX_BYTES + 1), mtime=0), "gzip", "larger than"),
        (b"[]", "", "not a JSON object"),
        (b"", "", None),
        (b"\xff\xfe", "", None),
    ],
)
def test_what_cannot_be_read_is_told(body: bytes, encoding: str, why: str | None) -> None:
    with pytest.raises(ValueError, match=why):
        read(body, encoding)


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"alg": None, "use": None, "kid": None, "d": None, "key_ops": None},
        {"alg": "RS256", "use": "sig"},
        {"kid": 5},
        {"x5c": 5, "strange": {}},
    ],
    ids=str,
)
def test_null_is_absent(key: dict[str, Any], odd: dict[str, Any]) -> None:
    (found,) = usable({"keys": [{**key, **odd}]}, ["RS256"])
    assert found.algorithm_name == "RS256"


@pytest.mark.parametrize(
    "odd",
    [
        {"alg": 5},
        {"alg": "RS512"},
        {"alg": ["RS256"]},
        {"use": "enc"},
        {"use": 5},
        {"kty": None},
        {"kty": ["RSA"]},
        {"kty": "RSA2"},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-1", "x": "AQ", "y": "AQ"},
        {"kty": "OKP", "crv": "X448", "x": "AQ"},
        {"kty": "OKP", "crv": None, "x": 5},
        {"n": None},
        {"n": 5, "e": 5},
        {"n": "!", "e": ""},
        {"n": "", "e": "AQ"},
        {"d": "AQ"},
    ],
    ids=str,
)
def test_a_key_for_somebody_else_is_passed_over(key: dict[str, Any], odd: dict[str, Any]) -> None:
    good = {**key, "kid": "good"}
    found = usable({"keys": [{**key, **odd}, None, 5, [], good]}, ["RS256", "ES256", "EdDSA"])
    assert [one.key_id for one in found] == ["good"]


def test_keys_that_share_a_kid_are_all_kept(key: dict[str, Any], tmp_path: Path) -> None:
    other = jwt.algorithms.RSAAlgorithm.to_jwk(EmbeddedKey.open(tmp_path)._key.public_key(), as_dict=True)
    found = usable({"keys": [{**key, "kid": "a"}, {**other, "kid": "a"}]}, ["RS256"])
    assert [one.key_id for one in found] == ["a", "a"]


@pytest.mark.parametrize("keys", [None, {}, "x", 5])
def test_what_is_no_key_set_is_told(keys: object) -> None:
    with pytest.raises(ValueError, match="no list of keys"):
        usable({"keys": keys}, ["RS256"])


@pytest.mark.parametrize("keys", [[], [{}], [5, None]])
def test_a_set_without_a_key_is_one(keys: object) -> None:
    """RACES 50."""
    assert usable({"keys": keys}, ["RS256"]) == []
