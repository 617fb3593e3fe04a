"""What ``POST /api/send/batch`` takes and answers: the envelopes and keys in a body, and what became of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from router.errors import InvalidRequest, RouterError
from router.web import problems

MOST_MESSAGES = 256
MOST_BYTES = 4 * 1024 * 1024
"""Of the body."""
_FORM = 'the body must be {"messages": [{"envelope": {…}, "idempotencyKey": "…"}, …]}'


class Send(NamedTuple):
    """One message of a batch, as a request of its own would hold it."""

    body: bytes
    idempotency_key: str | None


class _Send(msgspec.Struct, gc=False):
    envelope: msgspec.Raw
    camel: str | None = msgspec.field(default=None, name="idempotencyKey")
    snake: str | None = msgspec.field(default=None, name="idempotency_key")


class _Batch(msgspec.Struct):
    messages: list[_Send]


_decode = msgspec.json.Decoder(_Batch).decode


def read(body: bytes) -> list[Send]:
    """The messages of a batch, by the rules of ProtoJSON; their envelopes are still to be read.

    Raises ``InvalidRequest`` if ``body`` is not a batch.
    """
    try:
        batch = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest(_FORM) from error
    count = len(batch.messages)
    if not 0 < count <= MOST_MESSAGES:
        raise InvalidRequest(f"a batch has 1 to {MOST_MESSAGES} messages, and this one {count}")
    sends = [Send(bytes(each.envelope), _key(each)) for each in batch.messages]
    if body.count(b'"') != _quotes(sends):
        _refuse_twins(body)
    return sends


def answer(outcomes: Sequence[str | RouterError]) -> tuple[bytes, int | None]:
    """The body that tells these ids and errors, and the longest ``Retry-After`` of the errors."""
    results, waits = list[Any](), list[int]()
    for each in outcomes:
        if isinstance(each, RouterError):
            results.append({"error": problems.document(each)})
            if (wait := problems.retry_after(each)) is not None:
                waits.append(wait)
        else:
            results.append({"id": each})
    return msgspec.json.encode({"results": results}), max(waits, default=None)


def _key(send: _Send) -> str | None:
    if send.camel is not None and send.snake is not None:
        raise InvalidRequest('"idempotencyKey" is given under both of its names: remove one')
    return send.snake if send.camel is None else send.camel


def _quotes(sends: Sequence[Send]) -> int:
    """How many quotation marks a body has at the least: a batch with more may give a member twice."""
    members = sum(2 + send.body.count(b'"') + 4 * (send.idempotency_key is not None) for send in sends)
    return 2 + members


def _refuse_twins(body: bytes) -> None:
    """Raise ``InvalidRequest`` where the batch or a message has two members of one name.

    msgspec takes the last of them, and nobody can know which is meant. In an envelope they are that message's fault
    alone.
    """
    try:
        members = _PAIRS.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(_FORM) from error
    (messages,) = (value for name, value in _unique(members) if name == "messages")
    for message in messages:
        _unique(message)


def _unique(members: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    if len(dict(members)) != len(members):
        raise InvalidRequest("an object in the body has two members with the same name: remove one")
    return members


_PAIRS = json.JSONDecoder(object_pairs_hook=tuple, parse_int=str)
"""Leaves objects as their pairs. Python refuses to convert a number of thousands of digits, which is nobody's business
here."""
