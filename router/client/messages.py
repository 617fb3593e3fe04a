"""Messages as a program holds them: bytes in, bytes out."""

from __future__ import annotations

from typing import Self

import msgspec
from msgspec import Struct

from router.errors import InvalidEnvelope


class Envelope(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A sealed message, with its opaque fields as bytes (docs/specification.md#secureenvelope)."""

    recipient_id: str
    """A URN or a bare id; in what a fetch returns, the URN."""
    encrypted_data: bytes = b""
    encrypted_symmetric_key: bytes = b""
    signature: bytes = b""
    is_ephemeral: bool = False
    """Deliver it while the recipient is connected, or not at all."""
    priority: int | None = None
    """5 and above takes the express lane."""

    @classmethod
    def from_json(cls, content: bytes | msgspec.Raw) -> Self:
        """The envelope in canonical ProtoJSON, as the router writes it; fields of later versions are left out.

        Raises ``InvalidEnvelope``.
        """
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # Without the library's words, which may quote the content.
            raise InvalidEnvelope("this is not a SecureEnvelope in canonical ProtoJSON") from None

    def to_json(self) -> bytes:
        """ProtoJSON, which ``RouterClient.send`` takes too."""
        return msgspec.json.encode(self)


class Received(Struct, frozen=True):
    """A message as a fetch returns it."""

    id: str
    envelope: msgspec.Raw
    """Canonical ProtoJSON, byte by byte as the router sent it; ``raw`` has it as bytes."""

    @property
    def raw(self) -> bytes:
        """Canonical ProtoJSON, byte by byte as the router sent it."""
        return bytes(self.envelope)

    @property
    def decoded(self) -> Envelope:
        """The envelope with its fields as bytes. Raises ``InvalidEnvelope``, which no router of ours causes."""
        return Envelope.from_json(self.envelope)
