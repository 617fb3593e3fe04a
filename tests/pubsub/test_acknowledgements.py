"""Acknowledgements that the service does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from router.backends.pubsub.acknowledgements import BATCH_IDS, WAITING_ACKS, Settling
from router.backends.pubsub.wire import PubSubApi
from router.errors import Unavailable

pytestmark = pytest.mark.anyio


class Deaf:
    """A service that answers no acknowledgement before ``answer``, and refuses it then if it is ``down``."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.down = True
        self.asked = 0
        self.acked: list[str] = []
        self.handed_back: list[str] = []

    async def acknowledge(self, subscription: str, ack_ids: Sequence[str]) -> None:
        del subscription
        self.asked += 1
        await self.answer.wait()
        if self.down:
            raise Unavailable("just now")
        self.acked += ack_ids

    async def modify_ack_deadline(self, subscription: str, ack_ids: Sequence[str], seconds: int) -> None:
        del subscription, seconds
        self.handed_back += ack_ids


def ids(begin: int, end: int) -> list[str]:
    return [f"id-{number}" for number in range(begin, end)]


async def asked_once(api: Deaf) -> None:
    while not api.asked:  # noqa: ASYNC110 - a turn of the loop or two
        await asyncio.sleep(0)


async def test_no_more_wait_than_there_is_room_for() -> None:
    """The oldest are given up: their leases end first."""
    api = Deaf()
    settling = Settling(cast(PubSubApi, api), "the-subscription")
    settling.ack(ids(0, BATCH_IDS))
    await asked_once(api)
    for begin in range(BATCH_IDS, BATCH_IDS + WAITING_ACKS + 5000, 5000):
        settling.ack(ids(begin, begin + 5000))
    assert len(settling._acks) == WAITING_ACKS
    assert settling.lost == 5000
    api.down = False
    api.answer.set()
    await settling.told()
    assert api.acked == ids(0, BATCH_IDS) + ids(BATCH_IDS + 5000, BATCH_IDS + 5000 + WAITING_ACKS)


async def test_what_waited_behind_a_call_that_failed_is_given_up() -> None:
    """RACES 36: not one call after another until each has failed; what comes later is told again."""
    api = Deaf()
    settling = Settling(cast(PubSubApi, api), "the-subscription")
    settling.ack(ids(0, BATCH_IDS))
    await asked_once(api)
    settling.ack(ids(BATCH_IDS, 20 * BATCH_IDS))
    settling.nack(["held"])
    api.answer.set()
    await settling.told()
    assert (api.asked, settling.lost, settling._acks) == (1, 20 * BATCH_IDS, [])
    assert api.handed_back == ["held"]
    api.down = False
    settling.ack(["later"])
    await settling.told()
    assert api.acked == ["later"]
