"""Sealing text so that a router sees for whom it is, and nothing else.

For each message an ephemeral X25519 key agrees with the recipient's; HKDF-SHA256 makes of that the key of
AES-256-GCM. The sender's name, public key and text are inside. The signature over everything outside is made by the
sender's Ed25519 key, which only the recipient learns: to the router it is 64 bytes like any others.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CONTEXT = b"sealed-sender-example-1"
NONCE_BYTES = 12
RAW = serialization.Encoding.Raw, serialization.PublicFormat.Raw


class NotGenuine(Exception):
    """The envelope was not sealed for this person by whom it says."""


@dataclass(frozen=True)
class Identity:
    """A person's two private keys."""

    name: str
    agree: X25519PrivateKey
    sign: Ed25519PrivateKey

    @classmethod
    def open(cls, directory: Path, name: str) -> Identity:
        """The identity of ``name`` in ``directory``: made if missing, with a card for others beside it.

        Raises ``OSError``, and ``ValueError`` where its file holds no keys.
        """
        path = directory / f"{name}.secret"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(64))
        seed = path.read_bytes()
        if len(seed) != 64:
            raise ValueError(f"{path} holds no keys, which are 64 bytes")
        found = cls(
            name, X25519PrivateKey.from_private_bytes(seed[:32]), Ed25519PrivateKey.from_private_bytes(seed[32:])
        )
        (directory / f"{name}.card").write_bytes(found.card)
        return found

    @property
    def card(self) -> bytes:
        """What others need to write to this person, and to know them by: both public keys."""
        return self.agree.public_key().public_bytes(*RAW) + self.sign.public_key().public_bytes(*RAW)


def seal(text: str, sender: Identity, recipient: str, card: bytes) -> dict[str, str]:
    """A SecureEnvelope for the router: ``recipient`` is their URN, ``card`` their card.

    Raises ``ValueError`` where the card is none.
    """
    if len(card) != 64:
        raise ValueError(f"the card of {recipient} is none, which is 64 bytes")
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes(*RAW)
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(card[:32]))
    inside = json.dumps({"from": sender.name, "card": _text(sender.card), "text": text}).encode()
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(_key(shared, public, card)).encrypt(nonce, inside, _bound(recipient))
    return {
        "recipientId": recipient,
        "encryptedData": _text(sealed),
        "encryptedSymmetricKey": _text(public),
        "signature": _text(sender.sign.sign(_bound(recipient) + public + sealed)),
    }


def open_sealed(envelope: dict[str, str], reader: Identity) -> tuple[str, bytes, str]:
    """Who sent it, their card, and the text; raises ``NotGenuine``."""
    try:
        recipient = envelope["recipientId"]
        sealed, public, signature = (
            base64.b64decode(envelope[name]) for name in ("encryptedData", "encryptedSymmetricKey", "signature")
        )
        shared = reader.agree.exchange(X25519PublicKey.from_public_bytes(public))
        key = AESGCM(_key(shared, public, reader.card))
        inside = json.loads(key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(recipient)))
        card = base64.b64decode(inside["card"])
        Ed25519PublicKey.from_public_bytes(card[32:]).verify(signature, _bound(recipient) + public + sealed)
        return str(inside["from"]), card, str(inside["text"])
    # Whoever sealed it chose what is inside.
    except (InvalidTag, InvalidSignature, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotGenuine("not sealed for this person, or changed on the way") from error


def _key(shared: bytes, public: bytes, card: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=CONTEXT + public + card).derive(shared)


def _bound(recipient: str) -> bytes:
    return CONTEXT + recipient.encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
