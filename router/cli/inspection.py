"""What ``inspect-queue`` finds out. The records are the documented schema of its ``--json``.

It looks through the same components as the services do, changes nothing, and never holds a payload.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterable

from msgspec import Struct

from router.cli.common import age_seconds, now, timestamp
from router.clock import MICROSECONDS
from router.factory import Factory
from router.interfaces import BEFORE_ALL, ColdQueue, OnlineStore
from router.messages import HotUser, Queued, QueueTotals

PAGE = 500
PAGE_BYTES = 8 * 1024 * 1024


class Share(Struct, frozen=True):
    """What one tier holds."""

    messages: int
    bytes: int
    oldest_at: str | None
    """RFC 3339, like every point in time here; null if the tier is empty."""
    users: int | None
    """Users who have mail in it; null where that is not counted."""


class ConnectionView(Struct, frozen=True):
    id: str
    node: str
    since: str
    lease_seconds: float
    """Seconds until it counts as gone, unless it is renewed."""


class MessageView(Struct, frozen=True):
    id: str
    lane: str
    """``express`` or ``normal``."""
    tier: str
    """``hot``, ``cold``, or ``hot+cold`` if both hold a copy, as during a move."""
    sequence: int
    bytes: int
    """Size of the envelope."""
    queued_at: str
    age_seconds: float
    attempts: int
    """How often the ingress had delivered it when it was routed; 1 means once."""
    ephemeral: bool
    announced: bool
    """A push command for it was sent."""


class UserView(Struct, frozen=True):
    """``inspect-queue USER --json``."""

    at: str
    user: str
    connections: list[ConnectionView]
    hot: Share
    cold: Share
    messages: list[MessageView]
    """The first messages of both tiers, in the order of a fetch."""
    more: bool
    """There are more messages than these."""


class OldQueue(Struct, frozen=True):
    user: str
    tier: str
    messages: int
    bytes: int
    oldest_at: str
    age_seconds: float


class Overview(Struct, frozen=True):
    """``inspect-queue --json``."""

    at: str
    ingress: Share | None
    """Accepted messages that wait to be routed; null with Pub/Sub, which does not count them."""
    hot: Share
    cold: Share
    online_users: int
    connections: int
    dead_letters: int | None
    """Null if they go to a topic."""
    oldest: list[OldQueue]
    """The queues whose first message has waited longest."""


async def overview(factory: Factory, limit: int) -> Overview:
    """Totals of all queues, and the ``limit`` oldest."""
    online, cold = await factory.online_store(), await factory.cold_queue()
    ingress = await (await factory.ingress_producer()).backlog()
    refused = None
    if not factory.backends.ingress().letters_elsewhere():
        refused = await (await factory.dead_letter_box()).count()
    present = await online.online()
    at = now()
    return Overview(
        at=timestamp(at),
        ingress=None if ingress is None else _share(ingress),
        hot=_share(await online.totals(None)),
        cold=_share(await cold.totals(None)),
        online_users=present.users,
        connections=present.messages,
        dead_letters=refused,
        oldest=await _oldest(online, cold, limit, at),
    )


async def longest(factory: Factory, limit: int) -> list[OldQueue]:
    """The queues with the most messages, of both tiers."""
    online, cold = await factory.online_store(), await factory.cold_queue()
    queues = [("cold", user, totals) for user, totals in await cold.longest(limit)]
    most = heapq.nlargest(limit, [(each.hot, each.user) async for each in _hot_users(online)])
    queues += [("hot", user, await online.totals(user)) for _, user in most]
    return _ranked(heapq.nlargest(limit, queues, key=lambda queue: queue[2].messages), now())


async def user_view(factory: Factory, user: str, limit: int) -> UserView:
    """One user's connections, and the first ``limit`` messages."""
    online, cold = await factory.online_store(), await factory.cold_queue()
    # Hot, the tier that messages leave, is read first: so nothing is missed in between.
    hot_share, hot = await online.totals(user), await online.inspect(user, limit + 1)
    cold_share, cold_messages = await cold.totals(user), await _read_cold(online, cold, user, limit + 1)
    connections = await online.connections(user)
    at = now()
    messages = _merged(hot, cold_messages, at)
    return UserView(
        at=timestamp(at),
        user=user,
        connections=[
            ConnectionView(c.id, c.node, timestamp(c.since), max(0, c.lease_until - at) / MICROSECONDS)
            for c in connections
        ],
        hot=_share(hot_share),
        cold=_share(cold_share),
        messages=messages[:limit],
        more=len(messages) > limit,
    )


async def _read_cold(online: OnlineStore, cold: ColdQueue, user: str, limit: int) -> list[Queued]:
    """The first ``limit`` that are not acknowledged; a copy of one that is may be there for a moment."""
    found: list[Queued] = []
    after = BEFORE_ALL
    while len(found) < limit:
        page = await cold.read(user, min(PAGE, limit), PAGE_BYTES, after)
        acked = await online.acked(user, [queued.message.id for queued in page.messages]) if page.messages else set()
        found += [queued for queued in page.messages if queued.message.id not in acked]
        if not page.more:
            break
        after = page.messages[-1].place
    return found[:limit]


def _merged(hot: Iterable[Queued], cold: Iterable[Queued], at: int) -> list[MessageView]:
    tiers: dict[str, list[str]] = {}
    copies: dict[str, Queued] = {}
    for tier, messages in (("hot", hot), ("cold", cold)):
        for queued in messages:
            tiers.setdefault(queued.message.id, []).append(tier)
            copies.setdefault(queued.message.id, queued)
    ordered = sorted(copies.values(), key=lambda queued: queued.place)
    return [_view(queued, "+".join(tiers[queued.message.id]), at) for queued in ordered]


def _view(queued: Queued, tier: str, at: int) -> MessageView:
    return MessageView(
        id=queued.message.id,
        lane=queued.message.lane.name.lower(),
        tier=tier,
        sequence=queued.sequence,
        bytes=len(queued.message.envelope),
        queued_at=timestamp(queued.queued_at),
        age_seconds=age_seconds(queued.queued_at, at),
        attempts=queued.attempts,
        ephemeral=queued.message.ephemeral,
        announced=queued.announced,
    )


async def _oldest(online: OnlineStore, cold: ColdQueue, limit: int, at: int) -> list[OldQueue]:
    queues = [("cold", user, totals) for user, totals in await cold.oldest(limit)]
    queues += [("hot", user, await online.totals(user)) for user in await _oldest_hot(online, limit)]
    return _ranked(heapq.nsmallest(limit, queues, key=lambda queue: queue[2].oldest_at), at)


def _ranked(queues: Iterable[tuple[str, str, QueueTotals]], at: int) -> list[OldQueue]:
    return [
        OldQueue(user, tier, t.messages, t.bytes, timestamp(t.oldest_at), age_seconds(t.oldest_at, at))
        for tier, user, t in queues
        if t.messages
    ]


async def _oldest_hot(online: OnlineStore, limit: int) -> list[str]:
    oldest = heapq.nsmallest(limit, [(each.oldest_at, each.user) async for each in _hot_users(online)])
    return [user for _, user in oldest]


async def _hot_users(online: OnlineStore) -> AsyncIterator[HotUser]:
    """Those with hot mail."""
    after = ""
    while page := await online.hot_users(after, PAGE):
        for each in page:
            if each.hot:
                yield each
        after = page[-1].user


def _share(totals: QueueTotals) -> Share:
    users = totals.users if totals.users or not totals.messages else None
    return Share(totals.messages, totals.bytes, timestamp(totals.oldest_at) if totals.oldest_at else None, users)
