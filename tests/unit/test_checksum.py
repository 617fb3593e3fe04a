"""The checksum that travels with each message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router.checksum import NEVER, checksum, is_whole
from router.messages import Lane, Message
from tests.contract.stage import BOB

SOUND = Message("m1", BOB, b"{}" * 99, Lane.NORMAL, False, 0, checksum=checksum("m1", BOB, b"{}" * 99))


@given(st.integers(0, 8 * len(SOUND.envelope) - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    """RACES 42."""
    envelope = bytearray(SOUND.envelope)
    envelope[bit // 8] ^= 1 << bit % 8
    assert is_whole(SOUND)
    assert not is_whole(replace(SOUND, envelope=bytes(envelope)))


def test_id_and_recipient_are_covered_each_by_itself() -> None:
    assert not is_whole(replace(SOUND, id="m3"))
    assert not is_whole(replace(SOUND, recipient=f"{BOB}1"))
    assert checksum("a", "bc", b"") != checksum("ab", "c", b"")
    assert checksum("\udcff", BOB, b"") != checksum("?", BOB, b""), "a damaged id may be no text"


def test_what_has_none_is_believed_and_what_was_unreadable_never() -> None:
    assert is_whole(replace(SOUND, checksum=None, envelope=b"other"))
    assert not is_whole(replace(SOUND, checksum=NEVER))
