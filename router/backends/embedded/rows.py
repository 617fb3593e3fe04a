"""Rows to records."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from router.messages import Lane, Message, Queued

_LANES = (Lane.EXPRESS, Lane.NORMAL)


def hot_message(user: str, row: Any, announced: int) -> Queued:
    """A row of ``hot.read`` or ``hot.unannounced``."""
    id_, lane, sequence, queued_at, accepted_at, ephemeral, keyed, attempts, envelope = row
    message = Message(id_, user, envelope, _LANES[lane], bool(ephemeral), accepted_at, bool(keyed))
    return Queued(message, sequence, queued_at, sequence <= announced, attempts)


def cold_message(user: str, row: Any) -> Queued:
    """A row of ``cold.read``. What is in cold was announced when it came there."""
    id_, lane, sequence, queued_at, accepted_at, keyed, attempts, envelope = row
    message = Message(id_, user, envelope, _LANES[lane], False, accepted_at, bool(keyed))
    return Queued(message, sequence, queued_at, True, attempts)


def page(messages: Iterable[Queued], limit: int, max_bytes: int) -> tuple[list[Queued], bool]:
    """The first ``limit`` messages, or fewer where they exceed ``max_bytes``; and whether there are more.

    ``messages`` is read no further than it is needed.
    """
    taken: list[Queued] = []
    size = 0
    for queued in messages:
        size += len(queued.message.envelope)
        if len(taken) == limit or (taken and size > max_bytes):
            return taken, True
        taken.append(queued)
    return taken, False


def json_list(values: Iterable[str] | Iterable[int]) -> str:
    """The parameter of a statement that takes many values (``json_each``)."""
    return msgspec.json.encode(list(values)).decode()


def one(db: sqlite3.Connection, statement: str, parameters: tuple[object, ...] | dict[str, object]) -> Any:
    """The single row of ``statement``, or ``None``."""
    return db.execute(statement, parameters).fetchone()
