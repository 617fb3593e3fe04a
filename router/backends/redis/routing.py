"""Routing: which tier a message goes to, and the record of its id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import structs

from router.backends.redis.keys import pack_body, pack_id
from router.backends.redis.scripts import Command
from router.backends.redis.state import RedisState
from router.messages import Delivery, Message, Outcome, Queued, Routed, Settled

CALL_BYTES = 8 * 1024 * 1024
"""Envelopes of one batch, in bytes; more go in several, so that Redis answers each well within the time-out."""
Batch = list[tuple[int, Delivery, Message]]
"""(index in the results, delivery, its message) of deliveries to one recipient."""


class RedisRouting:
    """``Routing`` over Redis."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    async def route(self, deliveries: Sequence[Delivery]) -> list[Routed]:
        now = self._state.clock.now()
        routed: dict[int, Routed] = {}
        for recipients in _parts(_by_recipient(deliveries)):
            scripts = [self._route_call(user, batch, now) for user, batch in recipients.items()]
            results = await self._state.client.run(scripts, self._list_routed(recipients, now))
            for batch, result in zip(recipients.values(), results, strict=False):
                for (index, _, _), outcome, sequence in zip(batch, result[::2], result[1::2], strict=True):
                    routed[index] = Routed(Outcome(outcome.decode()), sequence, now if sequence else 0)
        return [routed[index] for index in range(len(deliveries))]

    def _route_call(self, user: str, batch: Batch, now: int) -> Command:
        rules = self._state.rules
        limits = rules.recipient
        messages: list[str | bytes | int] = []
        for _, delivery, message in batch:
            before = int(delivery.delivered_before)
            body = pack_body(delivery, message, now)
            fields = (int(message.lane), int(message.ephemeral), int(message.keyed), message.accepted_at, before, body)
            messages += (pack_id(message.id), *fields)
        bounds = (limits.queue_messages, limits.queue_bytes, now - self._state.ephemeral_span)
        about = (*bounds, int(rules.write_through), self._state.keeper.deleting_at())
        inbound = (now - self._state.skew.ahead, limits.inbound_span, limits.inbound_bytes_per_second)
        return self._state.call("route", user, self._state.keys.channels, user, *about, *inbound, *messages, now=now)

    def _list_routed(self, recipients: dict[str, Batch], now: int) -> list[Command]:
        due: dict[str, int] = {}
        for user, batch in recipients.items():
            if any(message.ephemeral for _, _, message in batch):
                due[user] = now + self._state.ephemeral_span
            elif any(delivery.delivered_before for _, delivery, _ in batch):
                due[user] = self._state.orphans_at
        commands = self._state.list_busy(recipients)
        return commands + self._state.list_due(due) if due else commands

    async def settle(self, messages: Sequence[Queued]) -> Settled:
        now = self._state.clock.now()
        users: dict[str, list[Queued]] = {}
        for queued in messages:
            users.setdefault(queued.message.recipient, []).append(queued)
        scripts = []
        for user, own in users.items():
            fields: list[str | bytes | int] = []
            for queued in own:
                message = queued.message
                fields += (pack_id(message.id), int(message.lane), queued.sequence, int(message.keyed), queued.size)
            scripts.append(self._state.call("settle", user, self._state.keys.channels, user, *fields, now=now))
        results = await self._state.client.run(scripts, self._state.list_busy(users))
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


def _by_recipient(deliveries: Sequence[Delivery]) -> dict[str, Batch]:
    recipients: dict[str, Batch] = {}
    for index, delivery in enumerate(deliveries):
        message = delivery.message
        assert message is not None, "only readable deliveries are routed"
        recipients.setdefault(message.recipient, []).append((index, delivery, message))
    return recipients


def _parts(recipients: dict[str, Batch]) -> Iterator[dict[str, Batch]]:
    """``recipients`` in parts, each of which ends when its envelopes have ``CALL_BYTES`` or more."""
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
