"""The examples with what they cannot use: a line says what is wrong, and no traceback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

EXAMPLES = Path(__file__).parents[2] / "examples"
SEALED = EXAMPLES / "sealed_sender"


def ended(place: Path, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=place,
        env={**os.environ, **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where bob has his keys, and a letter of alice that he can read."""
    ended(tmp_path, "sealed_sender/open.py", "bob")
    (tmp_path / "good.json").write_text(ended(tmp_path, "sealed_sender/seal.py", "alice", "bob", "hi").stdout)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "No such file"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[1]", "not sealed for"),
        (b"null", "not sealed for"),
        (b"{}", "not sealed for"),
        (b'{"recipientId":5,"encryptedData":"","encryptedSymmetricKey":"","signature":""}', "not sealed for"),
        (b'{"recipientId":"x","encryptedData":null,"encryptedSymmetricKey":"","signature":""}', "not sealed for"),
    ],
)
def test_a_file_that_is_no_letter_keeps_nobody_from_the_others(place: Path, content: bytes | None, word: str) -> None:
    if content is not None:
        (place / "odd.json").write_bytes(content)
    done = ended(place, "sealed_sender/open.py", "bob", "odd.json", "good.json")
    assert (done.returncode, done.stdout) == (1, "alice: hi\n")
    assert done.stderr.startswith("odd.json: ")
    assert word in done.stderr


@pytest.mark.parametrize(
    ("inside", "word"),
    [
        ('{"from": "alice", "card": CARD}', "not sealed for"),
        ("[]", "not sealed for"),
        ("5", "not sealed for"),
        ('{"from": {}, "card": 5}', "not sealed for"),
        ('{"from": "%s", "card": CARD, "text": ""}' % ("a" * 300), "File name too long"),
    ],
    ids=["no text", "list", "number", "wrong types", "long name"],
)
def test_what_a_stranger_has_sealed_may_be_anything(place: Path, inside: str, word: str) -> None:
    code = f"""
import json, sys
sys.path.insert(0, {str(SEALED)!r})
import sealing
from pathlib import Path
stranger = sealing.Identity.open(Path("keys"), "stranger")
made = json.dumps
json.dumps = lambda _: {inside!r}.replace("CARD", made(sealing._text(stranger.card)))
sealed = sealing.seal("", stranger, "urn:sm:user:bob", Path("keys/bob.card").read_bytes())
print(made(sealed))
"""
    made = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    (place / "odd.json").write_text(made.stdout)
    done = ended(place, "sealed_sender/open.py", "bob", "odd.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"odd.json: {word}")


def test_text_that_the_terminal_cannot_show(place: Path) -> None:
    (place / "odd.json").write_text(ended(place, "sealed_sender/seal.py", "alice", "bob", "h\udcff").stdout)
    done = ended(place, "sealed_sender/open.py", "bob", "odd.json", PYTHONIOENCODING="utf-8:strict")
    assert (done.returncode, done.stdout) == (0, "alice: h\\udcff\n")


@pytest.mark.parametrize("script", ["open.py", "seal.py"])
def test_no_argument(tmp_path: Path, script: str) -> None:
    assert ended(tmp_path, f"sealed_sender/{script}").stderr.startswith(f"usage: {script} ")


def test_sealed_sender_scripts_refuse_invalid_keys(place: Path) -> None:
    (place / "keys" / "eve.card").write_bytes(b"short")
    (place / "keys" / "eve.secret").write_bytes(b"short")
    (place / "keys" / "low.card").write_bytes(bytes(64))
    for script, *arguments in (
        ("seal.py", "alice", "eve", "hi"),
        ("seal.py", "alice", "low", "hi"),
        ("seal.py", "eve", "bob", "hi"),
        ("seal.py", "a/b", "bob", "hi"),
        ("seal.py", "alice", "nobody", "hi"),
        ("open.py", "eve"),
        ("open.py", "a/b"),
    ):
        done = ended(place, f"sealed_sender/{script}", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1


def test_the_toy_identity_service(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no key")
    assert ended(tmp_path, "deploy/identity.py").returncode == 2
    for key in ("bad.pem", "missing/key.pem"):
        done = ended(tmp_path, "deploy/identity.py", "token", "bob", IDENTITY_KEY=key)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("identity.py: ")
    token = ended(tmp_path, "deploy/identity.py", "token", "bob").stdout
    claims = token.split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"] == "bob"


@pytest.mark.parametrize("port", ["abc", "", "0", "65536", "\N{SUPERSCRIPT TWO}"])
@pytest.mark.parametrize("arguments", [["serve"], ["token", "bob"]])
def test_the_toy_identity_service_says_that_its_port_is_none(tmp_path: Path, port: str, arguments: list[str]) -> None:
    done = ended(tmp_path, "deploy/identity.py", *arguments, IDENTITY_PORT=port)
    assert done.returncode == 1
    assert done.stderr.startswith("identity.py: IDENTITY_PORT is ")
    assert "set it to a number from 1 to 65535" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["no key", "another kind", "encrypted"])
def test_the_toy_identity_service_says_that_its_key_is_none(tmp_path: Path, kind: str) -> None:
    password = serialization.BestAvailableEncryption(b"secret") if kind == "encrypted" else serialization.NoEncryption()
    key = tmp_path / "key.pem"
    made = ec.generate_private_key(ec.SECP256R1()) if kind == "another kind" else rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password)
    key.write_bytes(b"no key" if kind == "no key" else pem)
    done = ended(tmp_path, "deploy/identity.py", "token", "bob", IDENTITY_KEY=str(key))
    assert done.returncode == 1
    assert done.stderr.startswith(f"identity.py: {key} is no RSA key")
    assert len(done.stderr.splitlines()) == 1
