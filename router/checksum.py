"""The checksum that travels with a message from its acceptance to the fetch: what does not match it is never served.

It is the CRC-32 of id, recipient and envelope. That finds every single flipped bit and every burst of up to 32 bits,
and passes over other damage once in 4,000,000,000 times. It is against disks, memory and bugs, not against people: who
can write to a store can write a checksum too, and what an envelope says is sealed and signed by its sender.
"""

from __future__ import annotations

from zlib import crc32

from router.messages import Message

NEVER = -1
"""Matches nothing: the checksum of what could not even be read as a message."""


def checksum(id_: str, recipient: str, envelope: bytes) -> int:
    """Neither an id nor a URN holds a NUL, so that no two messages are summed up alike."""
    return crc32(envelope, crc32(f"{id_}\0{recipient}\0".encode("utf-8", "surrogatepass")))


def is_whole(message: Message) -> bool:
    """Whether ``message`` is what was accepted, as far as anybody can know."""
    return message.checksum is None or message.checksum == checksum(message.id, message.recipient, message.envelope)
