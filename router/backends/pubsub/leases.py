"""Looking at what waits in a subscription. Pub/Sub only hands messages out, so a look takes and hands back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.backends.pubsub.wire import PubSubApi

LEASE_SECONDS = 60
"""How long nobody else gets what is looked at, unless it is handed back before. A look that takes longer may meet its
first messages again; one that is killed keeps them from others for this long."""
PULL_SECONDS = 2.0
"""If none has come by then, none is left."""
RECEIPTS = 1000
"""In one call."""


class Leases:
    """The messages of one subscription that a command holds.

    State: the receipt of each message that is held, by the message's own id.
    """

    def __init__(self, api: PubSubApi, subscription: str) -> None:
        """``subscription``: its full name."""
        self._api = api
        self._subscription = subscription
        self._receipts: dict[str, str] = {}
        self._seen: set[str] = set()

    async def pull(self, limit: int) -> list[Any]:
        """Up to ``limit`` messages (``ReceivedMessage``) that were not seen before; empty if none is left.

        Pub/Sub may return less than everything.
        """
        received = await self._api.pull(self._subscription, limit, PULL_SECONDS)
        new = [one for one in received if one.message.message_id not in self._seen]
        self._receipts |= {one.message.message_id: one.ack_id for one in received}
        self._seen |= {one.message.message_id for one in new}
        await self._set_leases([one.ack_id for one in received], LEASE_SECONDS)
        return new

    async def acknowledge(self, receipts: Sequence[str]) -> None:
        """Delete these (``ack_id``) from the subscription. If a lease has ended, its message may come again."""
        for start in range(0, len(receipts), RECEIPTS):
            await self._api.acknowledge(self._subscription, receipts[start : start + RECEIPTS])
        done = set(receipts)
        self._receipts = {id_: receipt for id_, receipt in self._receipts.items() if receipt not in done}

    async def hand_back(self) -> None:
        """Let others have what is still held, at once."""
        held, self._receipts = list(self._receipts.values()), {}
        self._seen.clear()
        await self._set_leases(held, 0)

    async def _set_leases(self, receipts: Sequence[str], seconds: int) -> None:
        for start in range(0, len(receipts), RECEIPTS):
            await self._api.modify_ack_deadline(self._subscription, receipts[start : start + RECEIPTS], seconds)
