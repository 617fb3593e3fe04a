"""The Redis online store: routing, reading, acknowledging and moving, beside presence and sweeping."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import structs

from router.backends.redis.keys import (
    is_acked,
    owes_nothing,
    pack_body,
    pack_id,
    unpack_id,
    unpack_page,
    unpack_pending,
)
from router.backends.redis.scripts import Command
from router.backends.redis.store import by_user
from router.backends.redis.sweeping import RedisSweeping
from router.backends.rules import MOVE_LEASE_SECONDS
from router.clock import MICROSECONDS, apart
from router.messages import Delivery, HotPage, Lane, Message, Move, MoveRefused, Outcome, Queued, Routed, Settled

CALL_BYTES = 8 * 1024 * 1024
"""More envelopes than this go to Redis in several batches, so that each is answered well within the time-out."""
PROBE_SECONDS = 60
_LANES = tuple(frozenset(lanes) for lanes in ((), (Lane.EXPRESS,), (Lane.NORMAL,), Lane))
"""By what a script calls them."""

Batch = list[tuple[int, Delivery, Message]]
"""Deliveries to one recipient, with their places among the results."""


class RedisOnlineStore(RedisSweeping):
    """``OnlineStore`` over Redis."""

    async def probe(self) -> None:
        # A replica answers PING, and so does a master that refuses all writes.
        await self._client.run([self._scripts.call("probe", (self._keys.probe,), PROBE_SECONDS)])

    async def compare_clocks(self) -> float:
        before = self._clock.now()
        times = await self._client.on_each("TIME")
        after = self._clock.now()
        ahead = sorted(apart(before, after, int(time[0]) * MICROSECONDS + int(time[1])) for _, time in times)
        return self._skew.measured(ahead[len(ahead) // 2])

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._clock.now()
        routed: dict[int, Routed] = {}
        for recipients in _parts(_by_recipient(deliveries)):
            scripts = [self._route_call(user, batch, now) for user, batch in recipients.items()]
            results = await self._client.run(scripts, self._list_routed(recipients, now))
            for batch, result in zip(recipients.values(), results, strict=False):
                for (index, _, _), outcome, sequence in zip(batch, result[::2], result[1::2], strict=True):
                    routed[index] = Routed(Outcome(outcome.decode()), sequence, now if sequence else 0)
        return [routed[index] for index in range(len(deliveries))]

    def _route_call(self, user: str, batch: Batch, now: int) -> Command:
        rules = self._rules
        messages: list[str | bytes | int] = []
        for _, delivery, message in batch:
            before = int(delivery.delivered_before)
            body = pack_body(delivery, message, now)
            fields = (int(message.lane), int(message.ephemeral), int(message.keyed), message.accepted_at, before, body)
            messages += (pack_id(message.id), *fields)
        bounds = (rules.queue_messages, rules.queue_bytes, now - self._ephemeral_span)
        about = (*bounds, int(rules.write_through), self._keeper.deleting_at())
        inbound = (now - self._skew.ahead, rules.inbound_span, rules.inbound_bytes_per_second)
        return self._call("route", user, self._keys.channels, user, *about, *inbound, *messages, now=now)

    def _list_routed(self, recipients: dict[str, Batch], now: int) -> list[Command]:
        due: dict[str, int] = {}
        for user, batch in recipients.items():
            if any(message.ephemeral for _, _, message in batch):
                due[user] = now + self._ephemeral_span
            elif any(delivery.delivered_before for _, delivery, _ in batch):
                due[user] = self._orphans_at
        commands = self._list_busy(recipients)
        return commands + self._list_due(due) if due else commands

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now = self._clock.now()
        users: dict[str, list[Queued]] = {}
        for queued in messages:
            users.setdefault(queued.message.recipient, []).append(queued)
        scripts = []
        for user, own in users.items():
            fields: list[str | bytes | int] = []
            for queued in own:
                message = queued.message
                fields += (pack_id(message.id), int(message.lane), queued.sequence, int(message.keyed), queued.size)
            scripts.append(self._call("settle", user, self._keys.channels, user, *fields, now=now))
        results = await self._client.run(scripts, self._list_busy(users))
        acked: set[tuple[str, bytes]] = set()
        places: dict[tuple[str, bytes], int] = {}
        for user, (gone, misplaced) in zip(users, results, strict=False):
            acked.update((user, id_) for id_ in gone)
            places |= {(user, id_): number for id_, number in zip(misplaced[::2], misplaced[1::2], strict=True)}
        named = [((queued.message.recipient, pack_id(queued.message.id)), queued) for queued in messages]
        return Settled(
            [queued for name, queued in named if name in acked],
            [structs.replace(queued, sequence=places[name]) for name, queued in named if name in places],
        )

    async def read(self, user: str, limit: int, max_bytes: int, *, again: bool = False) -> HotPage:
        now = self._clock.now()
        cutoff = now - self._ephemeral_span
        result = await self._one("read", user, limit, max_bytes, cutoff, int(not again), now=now)
        more, cold_empty, cold_version, announced, online, cut_at, found, pending = result
        messages, under_way = unpack_page(user, found, announced), list(unpack_pending(pending))
        return HotPage(messages, _LANES[more], under_way, bool(cold_empty), cold_version, bool(online), cut_at)

    async def note_end(self, user: str, cut_at: int) -> None:
        await self._one("note_end", user, cut_at)

    async def note_cut(self, user: str) -> None:
        await self._client.run([self._call("note_cut", user)], self._list_busy([user]))

    async def acked(self, user: str, ids: Sequence[str]) -> set[str]:
        if not ids:
            return set()
        packed = [pack_id(id_) for id_ in ids]
        (records,) = await self._client.run([("HMGET", self._keys.of(user)[2], *packed)])
        # Whoever asks has found them in cold.
        unowed = [id_ for id_, record in zip(packed, records, strict=True) if owes_nothing(record)]
        if unowed:
            at = self._keeper.deleting_at()
            await self._client.run([self._call("owe", user, at, *unowed)], self._list_due({user: self._orphans_at}))
        return {id_ for id_, record in zip(ids, records, strict=True) if is_acked(record)}

    async def ack(self, user: str, ids: Sequence[str]) -> list[str]:
        now, at = self._clock.now(), self._keeper.deleting_at()
        owed = await self._one("ack", user, *self._remember_until(), at, *map(pack_id, ids), now=now)
        if owed:
            await self._client.run(self._list_due({user: self._orphans_at}))
        return [unpack_id(packed) for packed in owed]

    async def discard(self, user: str, damaged: Sequence[Queued]) -> list[str]:
        return await self.ack(user, [queued.message.id for queued in damaged])

    async def note_cold_empty(self, user: str, version: int) -> None:
        await self._one("note_cold_empty", user, version)

    async def begin_move(
        self, user: str, owner: str, limit: int, max_bytes: int, *, online_too: bool
    ) -> Move | MoveRefused:
        now = self._clock.now()
        lease = now + MOVE_LEASE_SECONDS * MICROSECONDS
        bounds = (owner, lease, limit, max_bytes, int(online_too))
        result = await self._one("begin_move", user, *bounds, *self._remember_until(), now=now)
        if isinstance(result, bytes):
            return MoveRefused(result.decode())
        dropped, more, announced, found = result
        return Move(unpack_page(user, found, announced), dropped, bool(more))

    async def end_move(self, user: str, owner: str, moved: Sequence[Queued]) -> list[str]:
        del owner  # each message's own state says whether it still moves
        acked = await self._one("end_move", user, *(pack_id(queued.message.id) for queued in moved))
        return [unpack_id(packed) for packed in acked]

    async def release_move(self, user: str, owner: str) -> None:
        await self._one("release_move", user, owner)

    async def forget_cold(self, expired: Sequence[Queued]) -> None:
        now = self._clock.now()
        users = by_user((queued.message.recipient, queued.message.id) for queued in expired)
        until = self._remember_until()
        await self._client.run(
            [self._call("forget_cold", user, *until, *map(pack_id, ids), now=now) for user, ids in users.items()]
        )

    async def forget_orphans(self, user: str, ids: Sequence[str]) -> None:
        await self._one("forget_orphans", user, *map(pack_id, ids))


def _by_recipient(deliveries: Sequence[Delivery]) -> dict[str, Batch]:
    recipients: dict[str, Batch] = {}
    for index, delivery in enumerate(deliveries):
        message = delivery.message
        assert message is not None, "only readable deliveries are routed"
        recipients.setdefault(message.recipient, []).append((index, delivery, message))
    return recipients


def _parts(recipients: dict[str, Batch]) -> Iterator[dict[str, Batch]]:
    """``recipients`` in parts whose envelopes have ``CALL_BYTES``, or little more."""
    part: dict[str, Batch] = {}
    size = 0
    for user, batch in recipients.items():
        part[user] = batch
        size += sum(len(message.envelope) for _, _, message in batch)
        if size >= CALL_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
