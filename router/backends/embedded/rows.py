"""Makes records of rows. A damaged row may hold any value in any column; it becomes a damaged message, not an error."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from router.checksum import NEVER
from router.messages import Lane, Message, Queued

_LANES = (Lane.EXPRESS, Lane.NORMAL)
ANY_LANE = -(1 << 63)
"""A lower bound of all lanes, even damaged ones."""


def hot_message(user: str, row: Any, announced: int) -> Queued:
    """The message of a row of ``hot.read`` or ``hot.unannounced``."""
    id_, lane, sequence, queued_at, accepted_at, ephemeral, keyed, attempts, checksum, envelope = row
    message = message_of(id_, user, envelope, lane, ephemeral, accepted_at, keyed, checksum)
    place = integer(sequence)
    return Queued(message, place, integer(queued_at), place <= announced, integer(attempts))


def cold_message(user: str, row: Any) -> Queued:
    """The message of a row of ``cold.read``. All mail in cold counts as announced: that happened when it came there."""
    id_, lane, sequence, queued_at, accepted_at, keyed, attempts, checksum, envelope = row
    message = message_of(id_, user, envelope, lane, False, accepted_at, keyed, checksum)
    return Queued(message, integer(sequence), integer(queued_at), True, integer(attempts))


def message_of(
    id_: Any, user: Any, envelope: Any, lane: Any, ephemeral: Any, accepted_at: Any, keyed: Any, checksum: Any
) -> Message:
    """The message of these columns; one that matches no checksum if a column does not have its type."""
    usual = envelope.__class__ is bytes and id_.__class__ is str and user.__class__ is str
    if usual and accepted_at.__class__ is int and lane in (0, 1):
        return Message(id_, user, envelope, _LANES[lane], bool(ephemeral), accepted_at, bool(keyed), checksum)
    body = envelope if isinstance(envelope, bytes) else str(envelope).encode()
    return Message(str(id_), str(user), body, lane_of(lane), False, integer(accepted_at), False, NEVER)


def lane_of(value: Any) -> Lane:
    """``value`` as a lane; a damaged value counts as the lane among whose messages it sorts."""
    return Lane.EXPRESS if value is None or (value.__class__ is int and value <= Lane.EXPRESS) else Lane.NORMAL


def integer(value: Any) -> int:
    """``value``; 0 if it is not an integer."""
    return value if value.__class__ is int else 0


def json_list(values: Iterable[str] | Iterable[int]) -> str:
    """``values`` as one parameter of a statement (``json_each``)."""
    return msgspec.json.encode(list(values)).decode()


def one(db: sqlite3.Connection, statement: str, parameters: tuple[object, ...] | dict[str, object]) -> Any:
    """The single row of ``statement``, or ``None``."""
    return db.execute(statement, parameters).fetchone()
